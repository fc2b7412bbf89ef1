from __future__ import annotations

from typing import Any

import pytest

from supermerge.errors import RecipeError, UsageError
from supermerge.recipe import Recipe

RECIPE: dict[str, Any] = {
    "base": "org/base",
    "experts": {"qwen2.5": "org/a", "b": {"model": "org/b"}},
    "method": "ties",
    "rules": [{"match": "*.bias", "method": "linear"}],
}


def test_changes_keys_in_order() -> None:
    changed = Recipe.of(RECIPE, ["seed=1", "memory=2GB", "seed=2", "output.path=out", "base=org/other"])
    assert (changed.seed, changed.memory, changed.base) == (2, 2 * 10**9, "org/other")
    assert str(changed.output.path).endswith("/out")


def test_reaches_into_short_forms() -> None:
    changed = Recipe.of(RECIPE, ["method.density=1e-1", "experts.qwen2.5.weight=0.5", "experts.b.weight=2"])
    assert (changed.method.name, changed.method.params) == ("ties", {"density": 0.1})
    assert (changed.experts["qwen2.5"].model, changed.weights) == ("org/a", [0.5, 2.0])


def test_replaces_a_whole_part() -> None:
    assert Recipe.of(RECIPE, ["method=linear"]).method.name == "linear"
    assert list(Recipe.of(RECIPE, ["experts={c: org/c}"]).experts) == ["c"]
    assert Recipe.of(RECIPE, ["method={name: ties, density: 0.4}"]).method.params == {"density": 0.4}


def test_reaches_into_lists() -> None:
    assert Recipe.of(RECIPE, ["rules.0.match=*.weight"]).rules[0].match == "*.weight"


def test_leaves_the_original_alone() -> None:
    Recipe.of(RECIPE, ["experts.b.weight=1", "experts.qwen2.5.weight=1", "rules.0.match=x"])
    assert RECIPE["experts"] == {"qwen2.5": "org/a", "b": {"model": "org/b"}}
    assert RECIPE["rules"][0]["match"] == "*.bias"


def test_changes_a_recipe_object() -> None:
    recipe = Recipe.of(RECIPE)
    assert Recipe.of(recipe) is recipe
    assert Recipe.of(recipe, ["seed=5"]).seed == 5


@pytest.mark.parametrize("override", ["seed", "=3", "base.x=1", "rules.7.match=x", "rules.first=x"])
def test_refuses_what_is_not_an_assignment(override: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        Recipe.of(RECIPE, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", "unknown key 'sede'; did you mean 'seed'?"),
        ("output.pth=x", "unknown key 'pth'; did you mean 'path'?"),
        ("seed=[1", "--set seed, line 1"),
        ("experts.b.modle=x", "unknown key 'modle'; did you mean 'model'?"),
    ],
)
def test_refuses_unknown_keys_and_values(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.of(RECIPE, [override])
    assert message in caught.value.message
