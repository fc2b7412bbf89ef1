from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def recipe(tmp_path: Path, write_models: Callable[..., None]) -> Path:
    write_models(tmp_path, "news", "spam")
    path = tmp_path / "recipe.yaml"
    path.write_text("base: base\nexperts: {news: news, spam: spam}\nmethod: ties\noutput: {path: merged}\n")
    return path


def test_shows_models_phases_and_needs(supermerge_command: Callable[..., object], recipe: Path) -> None:
    done = supermerge_command("plan", recipe)
    assert (done.code, done.err) == (0, "")
    for words in ("TIES-Merging", "base", "news", "2 tensors are merged", "once over all tensors", "memory", "merged"):
        assert words in done.out


def test_json_is_one_document(supermerge_command: Callable[..., object], recipe: Path) -> None:
    done = supermerge_command("plan", recipe, "--json")
    assert (done.code, done.err) == (0, "")
    plan = json.loads(done.out)
    assert (plan["method"], plan["merged"], plan["copied"], plan["refusals"]) == ("ties", 2, 1, [])


def test_what_does_not_fit_is_shown_and_refused(supermerge_command: Callable[..., object], recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "memory: 1MB\n")
    for flags in ([], ["--json"]):
        done = supermerge_command("plan", recipe, *flags)
        assert done.code == 5
        assert "news" in done.out
        assert "the recipe allows 1 MB" in done.err


def test_nothing_is_chosen_where_nothing_fits(supermerge_command: Callable[..., object], recipe: Path) -> None:
    text = recipe.read_text().replace("ties", "supermerge") + "memory: 1MB\n"
    recipe.write_text(text + "tasks: {news: {type: text-classification, validation: v.jsonl}}\n")
    done = supermerge_command("plan", recipe)
    assert done.code == 5
    assert [line.split()[-2:] for line in done.out.splitlines() if " exact " in line] == [["too", "large"]] * 3
    assert done.err.rstrip().endswith("raise `memory`, or lower `batch_size` or `max_length` of the tasks")


def test_the_disk_has_room_for_all_that_is_written(supermerge_command: Callable[..., object], recipe: Path) -> None:
    plan = json.loads(supermerge_command("plan", recipe, "--json").out)
    assert plan["disk_needed"] == sum(phase["writes"] for phase in plan["phases"])
    disk = f"up to {plan['disk_needed'] / 1e6:.3g} MB"
    assert disk in supermerge_command("plan", recipe).out


def test_an_existing_output_is_a_note(supermerge_command: Callable[..., object], recipe: Path) -> None:
    (recipe.parent / "merged").mkdir()
    done = supermerge_command("plan", recipe)
    assert done.code == 0
    assert "a run needs --force" in " ".join(done.out.split())
