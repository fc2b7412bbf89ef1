"""A run whose model lies on the disk makes the same files as one in memory, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from supermerge.errors import ResourceError
from supermerge.plan import plan
from supermerge.recipe import Recipe
from supermerge.run import run

STEPS = ("method.steps=4", "if_worse=warn")


@pytest.mark.parametrize("setting", ["granularity=layer", "init=ties"])
def test_the_same_merge(tiny: Path, setting: str) -> None:
    outputs, scores = {}, {}
    for residency in ("disk", "offload"):
        recipe = Recipe.load(tiny / "recipe.yaml", [*STEPS, f"method.{setting}", f"method.residency={residency}"])
        outputs[residency] = tiny / residency
        done = run(recipe, output=outputs[residency])
        scores[residency] = [(model.id, model.scores) for model in done.results.models]
    for file in ("model.safetensors", "coefficients.safetensors"):
        assert (outputs["disk"] / file).read_bytes() == (outputs["offload"] / file).read_bytes()
    assert scores["disk"] == scores["offload"]
    assert sorted(path.name for path in tiny.iterdir()) == ["base", "data", "disk", "experts", "offload", "recipe.yaml"]


def test_a_budget_below_the_least_is_refused_before_anything_is_read(tiny: Path) -> None:
    with pytest.raises(ResourceError, match=r"memory: the run needs about .* \(residency offload, the least\)"):
        run(Recipe.load(tiny / "recipe.yaml", ["memory=100MB"]), output=tiny / "merged")
    assert not (tiny / "merged").exists()


def test_without_learning_the_model_that_scores_can_lie_on_the_disk(tiny: Path) -> None:
    planned = plan(Recipe.load(tiny / "recipe.yaml", ["method=ties", "memory=100MB"]), output=tiny / "merged")
    assert planned.residency == "offload"
    assert [one.name for one in planned.residencies] == ["offload"]
