"""README and examples are true: recipes are planned, commands are parsed, Python without data runs."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from supermerge.cli.main import app
from supermerge.methods.settings import LearnSettings
from supermerge.plan import plan
from supermerge.recipe import Output, Recipe
from supermerge.tasks.spec import TaskSpec

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


EXAMPLES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.yaml"))}
RECIPES = {**EXAMPLES, **{f"README-{number}": text for number, text in enumerate(blocks("yaml"), start=1)}}
COMMANDS = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture
def workplace(tmp_path: Path, write_models: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which `models/base` and every expert of the documents exist, tiny."""
    write_models(tmp_path / "models", "news", "spam", "chat", "code")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_something_to_check() -> None:
    assert len(EXAMPLES) >= 4
    assert len(blocks("yaml")) == 2
    assert len(blocks("python")) == 2
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_planned(name: str, workplace: Path) -> None:
    path = workplace / "recipe.yaml"
    path.write_text(RECIPES[name])
    planned = plan(Recipe.load(path))
    assert planned.merged == 2
    assert planned.output == str(workplace / "merged")


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("supermerge ")])
def test_commands_are_parsed(line: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    name, *arguments = shlex.split(line)[1:]
    group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("target", re.findall(r"^make ([a-z-]+)", "\n".join(COMMANDS), flags=re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_merging_in_python(workplace: Path) -> None:
    (code,) = [block for block in blocks("python") if "supermerge.merge" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    assert sorted(names["state_dict"]) == ["embed.weight", "layer.0.weight", "steps"]


def test_the_page_of_methods_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_methods.py"))["page"]()
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == made, "run: python docs/make_methods.py"


def test_links_lead_somewhere() -> None:
    for document in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "docs" / "trust.md",
    ):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not link.startswith("https://"):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_key_of_a_recipe_is_explained() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    first_cells = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    for part in (Recipe, Output, TaskSpec, LearnSettings):
        missing = [key for key in part.model_fields if f"`{key}`" not in first_cells]
        assert (part.__name__, missing) == (part.__name__, [])
