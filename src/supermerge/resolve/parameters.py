"""The parameters of a recipe's methods: those of the method, those of every expert, and gradients over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args, get_origin

from supermerge.errors import RecipeError
from supermerge.methods import Bound, Method, get
from supermerge.methods.layers import interpolated, places
from supermerge.recipe import MethodChoice, Recipe


def bind(choice: MethodChoice, recipe: Recipe, place: float = 0.0) -> Bound:
    """The method of `choice` with the recipe's parameters; gradients have the value at `place` of the way through.

    Raises RecipeError for parameters that are unknown or out of range.
    """
    method = get(choice.name)
    if method.learned is not None:
        _refuse_fixed_weights(method, recipe)
        return method.bind()
    own = {
        key: interpolated(value, place) if _is_gradient(value) and not _one_per_expert(method, key) else value
        for key, value in choice.params.items()
    }
    weights = None if recipe.weights is None else [_at(weight, place) for weight in recipe.weights]
    return method.bind({**own, **_per_expert(method, own, recipe, place)}, weights=weights)


def by_layer(recipe: Recipe, names: Sequence[str]) -> dict[str, Bound]:
    """Tensor name → method, for the tensors whose method has a parameter that changes from layer to layer."""
    globs = (*((rule.match, rule.method) for rule in recipe.rules), ("*", recipe.method))
    graded = {id(choice) for _, choice in globs if _is_graded(choice, recipe)}
    made: dict[tuple[int, float], Bound] = {}
    found: dict[str, Bound] = {}
    for name, place in places(names).items() if graded else ():
        choice = next(choice for pattern, choice in globs if fnmatchcase(name, pattern))
        if id(choice) in graded:
            if (id(choice), place) not in made:
                made[id(choice), place] = bind(choice, recipe, place)
            found[name] = made[id(choice), place]
    return found


def _is_graded(choice: MethodChoice, recipe: Recipe) -> bool:
    method = get(choice.name)
    if method.learned is not None:
        return False
    per_expert = [value for expert in recipe.experts.values() for value in (expert.weight, *expert.params.values())]
    common = [value for key, value in choice.params.items() if not _one_per_expert(method, key)]
    return any(map(_is_gradient, [*per_expert, *common]))


def _is_gradient(value: Any) -> bool:
    """A list of numbers is one, unless it has one number per expert."""
    numbers = isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value)
    return numbers and len(value) > 0


def _at(value: Any, place: float) -> Any:
    return interpolated(value, place) if _is_gradient(value) else value


def _one_per_expert(method: Method, key: str) -> bool:
    """Whether a list is one value per expert for this parameter."""
    field = method.parameters.model_fields.get(key)

    def has_tuple(annotation: Any) -> bool:
        return get_origin(annotation) is tuple or any(map(has_tuple, get_args(annotation)))

    return field is None or has_tuple(field.annotation)


def _per_expert(method: Method, common: dict[str, Any], recipe: Recipe, place: float) -> dict[str, Any]:
    """Parameters that experts set for themselves, as one value per expert; the others have the method's.

    A parameter that only another method of the recipe knows is left to that one; one that none knows is refused here.
    """
    elsewhere = {
        name
        for other in (recipe.method, *(rule.method for rule in recipe.rules))
        for name in get(other.name).parameters.model_fields
    }
    own = method.parameters.model_fields
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for expert in recipe.experts.values() for name in expert.params):
        if name in own or name not in elsewhere:
            fallback = common.get(name, own[name].default if name in own else None)
            found[name] = tuple(_at(expert.params.get(name, fallback), place) for expert in recipe.experts.values())
    return found


def _refuse_fixed_weights(method: Method, recipe: Recipe) -> None:
    for name, expert in recipe.experts.items():
        fixed = [*(["weight"] if expert.weight is not None else []), *expert.params]
        if fixed:
            raise RecipeError(
                f"experts.{name}.{fixed[0]}: {method.name} learns its coefficients and takes no parameters per expert",
                hint="Remove it, or choose a method that does not learn.",
            )
