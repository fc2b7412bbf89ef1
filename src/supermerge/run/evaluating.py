"""`supermerge.evaluate`: any model of the recipe's architecture, scored on the recipe's test rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from supermerge.checkpoint import match, open_expert
from supermerge.errors import RecipeError
from supermerge.plan.comparison import room_to_score
from supermerge.recipe import Recipe
from supermerge.run.prepared import prepared

if TYPE_CHECKING:
    from supermerge.tasks.score import Score


def evaluate(model: Any, recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Score]:
    """The score of `model` on every task of `recipe` that has test rows.

    `model` is whatever `merge` takes for an expert: it gives the backbone, the heads are those of the recipe. Raises
    CheckpointError where it does not fit the base, RecipeError where no task has test rows, ResourceError
    where the recipe's `memory` is too little.
    """
    from supermerge.tasks.evaluate import evaluate_source

    with ExitStack() as stack:
        wanted = Recipe.of(recipe)
        ready = stack.enter_context(prepared(wanted, room_to_score(wanted)))
        checkpoint = open_expert(model, ready.opened.base, stack)
        bench = ready.require_bench("evaluate")
        rows = {task: rows.test for task, rows in ready.rows.items() if rows.test}
        if not rows:
            raise RecipeError("No task has test examples.", hint="Add `test` to a task of the recipe.")
        same = checkpoint.identity == ready.opened.base.identity
        source = ready.opened.base if same else match(ready.opened.base, {"model": checkpoint}).experts["model"]
        return evaluate_source(bench, checkpoint.label, source, rows)
