"""The adapter that a recipe asks for, on the model that its tasks share or that its experts were trained in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from supermerge.assemble.adapter import AdapterLayout
from supermerge.checkpoint import Checkpoint
from supermerge.checkpoint.adapters import adapter_of
from supermerge.errors import RecipeError
from supermerge.plan.adapter import planned_adapter
from supermerge.run.prepared import Prepared

if TYPE_CHECKING:
    from supermerge.tasks.binding import Binding

_GENERATIVE = {"causal-lm": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}


def adapter_of_recipe(ready: Prepared) -> AdapterLayout | None:
    """What the adapter consists of; None where the recipe wants a whole model. RecipeError where none can be made."""
    layout = planned_adapter(ready.recipe, ready.match, ready.opened.choice, _shared_names(ready))
    if layout is None:
        return None
    place, revision = _place(ready.opened.base, ready.recipe.base)
    task_type, model_class = _task_type(ready), None
    if ready.bench is not None:
        model_class = type(ready.bench.model).__name__
        _require_stored_as_loaded(layout, ready.bench.binding)
    saved = replace(layout.saved, base=place, revision=revision, task_type=task_type, model_class=model_class)
    return replace(layout, saved=saved)


def _place(base: Checkpoint, ref: str) -> tuple[str, str | None]:
    """Where PEFT finds the base: on a hub, at a commit, or in a directory."""
    if base.revision is not None:
        return ref.partition("@")[0], base.revision
    return os.path.abspath(base.directory or ref), None


def _shared_names(ready: Prepared) -> Mapping[str, str] | None:
    """The base's names -> those of the model that the tasks share; None without tasks."""
    if ready.bench is None:
        return None
    found = {name: name for name in ready.opened.base.tensors}
    for parameter, made in reversed(ready.bench.binding.made.items()):
        if made.route.converter is None:
            found[made.route.sources[0]] = parameter
    return found


def _require_stored_as_loaded(layout: AdapterLayout, binding: Binding) -> None:
    """RecipeError where transformers makes other tensors of those that the adapter changes, when it loads the base."""
    made = {name for how in binding.made.values() if how.route.converter is not None for name in how.route.sources}
    found = [name for name in (*layout.products, *layout.scales, *layout.whole) if name in made]
    if found:
        raise RecipeError(
            f"output.save_as: an adapter cannot hold this merge: transformers makes other tensors of {found[0]} and "
            f"{len(found) - 1} more when it loads the base.",
            hint="Use save_as: dense.",
        )


def _task_type(ready: Prepared) -> str | None:
    """PEFT's word for what the model is for: that of the tasks, or what all experts say."""
    if ready.recipe.tasks:
        found = {_GENERATIVE.get(task.type) for task in ready.recipe.tasks.values()}
    elif any(ready.match.heads.values()):
        return None  # the heads that the experts brought are not merged
    else:
        views = [adapter_of(ready.opened.base, source) for source in ready.match.experts.values()]
        found = {view.settings.task_type if view else None for view in views}
    return found.pop() if len(found) == 1 else None
