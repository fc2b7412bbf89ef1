"""Methods on statistics of the experts, from the recipe to a directory that can be checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import supermerge
from supermerge.checkpoint import Checkpoint
from supermerge.errors import DataError
from supermerge.recipe import Recipe
from supermerge.run.checking import check

METHODS = ["regmean", "regmean_plus_plus", "mats", "gradient_matching", "cat", "lot", "esm", "sens_merging, scale: 0.8"]


def recipe(tiny: Path, method: str) -> Recipe:
    return Recipe.load(tiny / "recipe.yaml", overrides=[f"method={{name: {method}}}"])


@pytest.mark.parametrize("method", METHODS)
def test_run_measures_keeps_and_checks(tiny: Path, method: str) -> None:
    result = supermerge.run(recipe(tiny, method))
    scores = {model.id: model.mean for model in result.results.models}
    assert scores["merged"] > scores["base"] + 0.1
    kept = sorted(tiny.glob("experts/*/statistics/*"))
    # What depends on all experts together is kept beside none.
    assert {path.parent.parent.name for path in kept} == (set() if method == "regmean_plus_plus" else {"mood", "topic"})
    times = [path.stat().st_mtime_ns for path in kept]
    assert check(result.directory) > 0
    assert [path.stat().st_mtime_ns for path in kept] == times
    again = supermerge.run(recipe(tiny, method), output=tiny / "again")
    with Checkpoint.open(result.directory) as one, Checkpoint.open(again.directory) as other:
        assert all(torch.equal(one.read(name), other.read(name)) for name in one.tensors)


def test_statistics_travel_without_the_data(tiny: Path) -> None:
    wanted = recipe(tiny, "regmean")
    with_data = supermerge.run(wanted)
    alone = wanted.model_copy(update={"tasks": {}})
    without = supermerge.run(alone, output=tiny / "without")
    with Checkpoint.open(with_data.directory) as one, Checkpoint.open(without.directory) as other:
        assert all(torch.equal(one.read(name), other.read(name)) for name in one.tensors)
    for path in tiny.glob("experts/mood/statistics/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"expert 'mood': no task has examples to measure gram on"):
        supermerge.run(alone, output=tiny / "third")


def test_compare_and_plan_know_them(tiny: Path) -> None:
    wanted = recipe(tiny, "fisher")
    planned = supermerge.plan(wanted)
    assert [phase.name for phase in planned.phases] == ["statistics", "merge", "evaluate", "report"]
    found = supermerge.compare(wanted, ["fisher", "linear"], output=tiny / "comparison")
    scores = {model.id: model.mean for model in found.results.models}
    assert scores["method:fisher"] > scores["base"]


@pytest.mark.parametrize("start", ["regmean", "regmean_plus_plus"])
def test_learning_starts_from_a_merge_with_statistics(tiny: Path, start: str) -> None:
    learned = Recipe.load(tiny / "recipe.yaml", overrides=[f"method={{name: supermerge, steps: 0, init: {start}}}"])
    result = supermerge.run(learned)
    plain = supermerge.run(recipe(tiny, start), output=tiny / "plain")
    with Checkpoint.open(result.directory) as one, Checkpoint.open(plain.directory) as other:
        for name in one.tensors:
            torch.testing.assert_close(one.read(name), other.read(name), rtol=0, atol=1e-5)
