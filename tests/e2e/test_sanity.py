"""A merge that is worse than its base says so: on the terminal, in metrics.json, the page and the card."""

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


def test_worse_is_said_everywhere(tiny: Path, cli: Cli) -> None:
    """Far against the experts: the opposite of what they learned, which the base did not know either way."""
    wrong = "method={name: task_arithmetic, scale: -2.0}"
    done = cli("run", tiny / "recipe.yaml", "--quiet", "--set", wrong)
    assert done.returncode == 0, done.stderr
    assert f"warning: {SAID}" in done.stderr
    assert SAID in done.stdout
    warnings = json.loads((tiny / "merged" / "metrics.json").read_text())["warnings"]
    assert [warning for warning in warnings if warning.startswith(SAID)]
    for name in ("report.html", "README.md"):
        assert SAID in (tiny / "merged" / name).read_text()


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
