"""From a recipe's words to the things they name: open checkpoints, bound methods, settings of learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from supermerge.assemble import Choice
from supermerge.checkpoint import Checkpoint, Match, match
from supermerge.errors import RecipeError
from supermerge.methods import Bound, Method, get
from supermerge.methods.parameters import validated
from supermerge.methods.settings import LearnSettings
from supermerge.recipe import MethodChoice, Recipe


@dataclass(frozen=True, slots=True)
class Opened:
    """The checkpoints of a recipe, and how they fit together."""

    base: Checkpoint
    experts: dict[str, Checkpoint]
    match: Match


@contextmanager
def opened(recipe: Recipe) -> Iterator[Opened]:
    """The base and the experts of `recipe`, opened (headers only) and matched; closed at the end of the block."""
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(recipe.base))
        experts: dict[str, Checkpoint] = {}
        for name, expert in recipe.experts.items():
            if expert.adapter is not None or expert.model is None:
                raise RecipeError(
                    f"experts.{name}.adapter: adapters are not read by this version",
                    hint="Merge the adapter into its model first, and give the result as 'model'.",
                )
            experts[name] = stack.enter_context(Checkpoint.open(expert.model))
        for checkpoint in (base, *experts.values()):
            checkpoint.side_files()  # a link out of its directory is refused now, not when it is copied
        yield Opened(base, experts, match(base, experts))


def chosen_methods(recipe: Recipe) -> Choice:
    """The recipe's method and rules with checked parameters; RecipeError where one is unknown or out of range."""
    rules = tuple((rule.match, _bound(rule.method, recipe)) for rule in recipe.rules)
    for (pattern, bound), rule in zip(rules, recipe.rules, strict=True):
        if bound.method.learned is not None:
            raise RecipeError(
                f"rules: {pattern!r} asks for {rule.method.name}, which learns",
                hint="Only 'method' can learn; rules name methods that need no data.",
            )
    return Choice(_bound(recipe.method, recipe), rules)


def learn_settings(recipe: Recipe) -> LearnSettings | None:
    """How the recipe's method learns: its own defaults and what the recipe says; None where it does not learn."""
    return settings_of(get(recipe.method.name), recipe.method.params)


def settings_of(method: Method, params: Mapping[str, Any]) -> LearnSettings | None:
    """How `method` learns with `params`; RecipeError where one is unknown or out of range."""
    if method.learned is None:
        return None
    spec = method.learned
    own = {"link": spec.link, "loss": spec.loss, "init": spec.init, "granularity": spec.granularity, **spec.defaults}
    return LearnSettings(**validated(method.name, LearnSettings, {**own, **params}))


def _bound(choice: MethodChoice, recipe: Recipe) -> Bound:
    method = get(choice.name)
    if method.learned is not None:
        _refuse_fixed_weights(method, recipe)
        return method.bind()
    return method.bind({**choice.params, **_per_expert(method, choice, recipe)}, weights=recipe.weights)


def _per_expert(method: Method, choice: MethodChoice, recipe: Recipe) -> dict[str, Any]:
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
            common = choice.params.get(name, own[name].default if name in own else None)
            found[name] = tuple(expert.params.get(name, common) for expert in recipe.experts.values())
    return found


def _refuse_fixed_weights(method: Method, recipe: Recipe) -> None:
    for name, expert in recipe.experts.items():
        fixed = [*(["weight"] if expert.weight is not None else []), *expert.params]
        if fixed:
            raise RecipeError(
                f"experts.{name}.{fixed[0]}: {method.name} learns its coefficients and takes no parameters per expert",
                hint="Remove it, or choose a method that does not learn.",
            )
