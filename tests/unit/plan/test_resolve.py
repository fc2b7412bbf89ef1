from __future__ import annotations

import pytest

from supermerge.errors import RecipeError
from supermerge.recipe import Recipe
from supermerge.resolve import chosen_methods, learn_settings

EXPERTS = {"a": {"model": "org/a", "density": 0.9}, "b": "org/b"}


def test_experts_override_the_methods_parameters() -> None:
    choice = chosen_methods(Recipe.of({"base": "x", "experts": EXPERTS, "method": {"name": "ties", "density": 0.4}}))
    assert choice.default.values["density"] == (0.9, 0.4)
    choice = chosen_methods(Recipe.of({"base": "x", "experts": EXPERTS, "method": "ties"}))
    assert choice.default.values["density"] == (0.9, 0.2)


def test_a_parameter_goes_to_the_methods_that_know_it() -> None:
    rules = [{"match": "*.bias", "method": "linear"}]
    recipe = {"base": "x", "experts": EXPERTS, "method": "ties", "rules": rules}
    choice = chosen_methods(Recipe.of(recipe))
    assert choice("a.weight").values["density"] == (0.9, 0.2)
    assert "density" not in choice("a.bias").values
    with pytest.raises(RecipeError, match="unknown parameter 'density'"):
        chosen_methods(Recipe.of({**recipe, "method": "task_arithmetic"}))


def test_rules_choose_by_name_and_the_first_wins() -> None:
    rules = [{"match": "*.bias", "method": "linear"}, {"match": "a.*", "method": {"name": "ties", "density": 0.7}}]
    choice = chosen_methods(
        Recipe.of({"base": "x", "experts": {"a": "org/a"}, "method": "task_arithmetic", "rules": rules})
    )
    assert [choice(name).method.name for name in ("a.bias", "a.weight", "b.weight")] == [
        "linear",
        "ties",
        "task_arithmetic",
    ]


def test_weights_reach_the_method() -> None:
    experts = {"a": {"model": "org/a", "weight": 0.3}, "b": {"model": "org/b", "weight": 0.7}}
    choice = chosen_methods(Recipe.of({"base": "x", "experts": experts, "method": "linear"}))
    assert choice.default.values["weights"] == (0.3, 0.7)


def test_settings_of_learning() -> None:
    def settings(method: object) -> object:
        return learn_settings(Recipe.of({"base": "x", "experts": {"a": "org/a"}, "method": method}))

    assert settings("ties") is None
    adamerging = settings("adamerging")
    assert (adamerging.link, adamerging.loss, adamerging.lr) == ("clamp", "entropy", 0.001)
    changed = settings({"name": "adamerging", "lr": 0.5, "link": "tanh"})
    assert (changed.link, changed.lr) == ("tanh", 0.5)


def test_lists_of_an_expert_are_gradients_over_the_layers() -> None:
    experts = {"a": {"model": "org/a", "weight": [0, 1], "density": [1, 0.5]}, "b": {"model": "org/b", "weight": 2}}
    recipe = Recipe.of({"base": "x", "experts": experts, "method": "ties"})
    names = ["h.0.w", "h.1.w", "h.2.w", "out.weight"]
    choice = chosen_methods(recipe, names)
    assert [choice(name).values["weights"] for name in names] == [(0, 2), (0.5, 2), (1, 2), (0, 2)]
    assert [choice(name).values["density"][0] for name in names] == [1, 0.75, 0.5, 1]
    assert choice("h.0.w") is choice("out.weight")


def test_a_list_of_a_parameter_that_is_one_number_is_a_gradient() -> None:
    rules = [{"match": "h.*", "method": {"name": "slerp", "t": [0, 1]}}]
    recipe = Recipe.of({"base": "x", "experts": {"a": "org/a"}, "method": "linear", "rules": rules})
    choice = chosen_methods(recipe, ["h.0.w", "h.1.w", "e.w"])
    assert [choice(name).values["t"] for name in ("h.0.w", "h.1.w")] == [0, 1]
    assert choice("e.w").method.name == "linear"
    bad = Recipe.of({"base": "x", "experts": {"a": "org/a"}, "method": {"name": "slerp", "t": [0, 3]}})
    with pytest.raises(RecipeError, match=r"t = 3"):
        chosen_methods(bad, ["h.0.w", "h.1.w"])
