"""The adapter that a recipe asks for in the place of a model, from headers alone."""

from __future__ import annotations

from collections.abc import Mapping

from supermerge.assemble import Choice
from supermerge.assemble.adapter import AdapterLayout, Learning, adapter_layout
from supermerge.checkpoint import Match
from supermerge.learn.basis import Basis
from supermerge.recipe import Recipe
from supermerge.resolve import learn_settings


def planned_adapter(
    recipe: Recipe, match: Match, choice: Choice, names: Mapping[str, str] | None
) -> AdapterLayout | None:
    """What it consists of; None where the recipe wants a whole model. RecipeError where no adapter holds the merge.

    `names` are those of the model that it is for, by the base's; None for that which the experts were trained in.
    """
    if recipe.output.save_as == "dense":
        return None
    settings = learn_settings(recipe)
    learning = None
    if settings is not None:
        basis = Basis.of(settings, list(match.experts), match)
        learning = Learning(settings.granularity, summed=not basis.members)
    return adapter_layout(match, choice, rank=recipe.output.rank, learning=learning, names=names)
