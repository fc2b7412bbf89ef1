"""A merge worse than its base is refused, or says so: on the terminal, in metrics.json, the page and the card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supermerge.run.sanity import lost_to
from supermerge.tasks.score import Score

Cli = Callable[..., subprocess.CompletedProcess[str]]
SAID = "The merge is worse than the base on the validation examples:"


# Far against the experts: the opposite of what they learned, which the base did not know either way.
WRONG = "method={name: task_arithmetic, scale: -2.0}"


def says_so(directory: Path) -> bool:
    warnings = json.loads((directory / "metrics.json").read_text())["warnings"]
    pages = [(directory / name).read_text() for name in ("report.html", "README.md")]
    return any(warning.startswith(SAID) for warning in warnings) and all(SAID in page for page in pages)


def test_worse_is_refused_and_kept_aside(tiny: Path, cli: Cli) -> None:
    """The output that was there stays as it was, under --force too; a second refusal replaces the first."""
    assert cli("run", tiny / "recipe.yaml", "--quiet", "--set", "method.steps=5").returncode == 0
    before = {path: path.read_bytes() for path in (tiny / "merged").rglob("*") if path.is_file()}
    for _ in range(2):
        done = cli("run", tiny / "recipe.yaml", "--quiet", "--force", "--set", WRONG)
        assert (done.returncode, done.stdout) == (7, "")
        assert SAID in done.stderr
    assert {path: path.read_bytes() for path in (tiny / "merged").rglob("*") if path.is_file()} == before
    assert says_so(tiny / "merged.refused")
    assert cli("verify", tiny / "merged.refused").returncode == 0
    assert not [path for path in tiny.iterdir() if path.name.startswith(".")]


def test_refused_does_not_replace_what_is_not_ours(tiny: Path, cli: Cli) -> None:
    (tiny / "merged.refused").mkdir()
    (tiny / "merged.refused" / "thesis.txt").write_text("mine")
    done = cli("run", tiny / "recipe.yaml", "--quiet", "--set", WRONG)
    assert done.returncode == 5
    assert (tiny / "merged.refused" / "thesis.txt").read_text() == "mine"
    assert not (tiny / "merged").exists()


def test_worse_is_written_where_the_recipe_takes_it(tiny: Path, cli: Cli) -> None:
    done = cli("run", tiny / "recipe.yaml", "--quiet", "--set", WRONG, "--set", "if_worse=warn")
    assert done.returncode == 0, done.stderr
    assert f"warning: {SAID}" in done.stderr
    assert SAID in done.stdout
    assert says_so(tiny / "merged")


def test_better_is_not_doubted(tiny: Path, cli: Cli) -> None:
    done = cli("run", tiny / "recipe.yaml", "--quiet", "--set", "method.steps=5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "worse than the base on the validation" not in done.stdout


def score(metric: str, value: float) -> Score:
    return Score(metric=metric, value=value, low=value, high=value, n=4)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ([("accuracy", 0.5), ("accuracy", 0.5)], [0.7, 0.4], []),
        ([("accuracy", 0.5), ("accuracy", 0.5)], [0.5, 0.4], ["1"]),
        ([("accuracy", 0.5), ("accuracy", 0.5)], [0.6, 0.3], ["1"]),
        ([("perplexity", 5.0), ("perplexity", 5.0)], [4.0, 5.5], []),
        ([("perplexity", 5.0), ("perplexity", 5.0)], [4.9, 7.0], ["1"]),
        ([("accuracy", 0.5), ("perplexity", 5.0)], [0.9, 50.0], []),
        ([("accuracy", 0.5), ("perplexity", 5.0)], [0.5, 50.0], ["1"]),
        ([("accuracy", 0.5)], [0.5], []),
    ],
)
def test_what_counts_as_worse(before: list[tuple[str, float]], after: list[float], worse: list[str]) -> None:
    old = {str(i): score(metric, value) for i, (metric, value) in enumerate(before)}
    new = {str(i): score(metric, value) for i, ((metric, _), value) in enumerate(zip(before, after, strict=True))}
    assert lost_to(old, new) == worse
