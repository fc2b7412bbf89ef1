"""Within a recipe's `memory`: where the model lies while methods are compared or a model is scored, and the threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from supermerge.accelerator import CPU
from supermerge.assemble.workers import default_threads
from supermerge.errors import ResourceError
from supermerge.plan.activations import Activations, activations
from supermerge.plan.memory import OFFLOAD, device_of, model_bytes, model_class_bytes, offloaded_bytes
from supermerge.plan.plan import Plan, plan
from supermerge.recipe import Recipe
from supermerge.report.numbers import size
from supermerge.resolve import opened
from supermerge.resources import resident_bytes

_ADVICE = "raise `memory`, or lower `batch_size` or `max_length` of the tasks"


@dataclass(frozen=True, slots=True)
class Room:
    """`residency` is what `prepared` takes; `threads` merge."""

    residency: str | None
    threads: int


def room_to_compare(recipe: Recipe, methods: Sequence[str]) -> Room:
    """For merging with each of `methods`, beside a merge that is kept in memory. Without `memory` nothing is bounded.

    One model serves all, so it lies where the largest of them needs it. Raises ResourceError where one cannot fit.
    """
    if recipe.memory is None:
        return Room(None, default_threads())
    plans = {name: _beside_a_merge(recipe, name, recipe.memory) for name in methods}
    places = {found.residency for found in plans.values()}
    residency = next((place for place in (OFFLOAD, "disk", "memory") if place in places), None)
    return Room(residency, min(found.threads for found in plans.values()))


def room_to_score(recipe: Recipe) -> str | None:
    """The residency of the model where checkpoints are scored and nothing is merged. Raises ResourceError."""
    if recipe.memory is None:
        return None
    with opened(recipe) as sources:
        match, held = sources.match, resident_bytes() + model_class_bytes()
        active = activations(recipe, sources) or Activations(0, 0)
        least = 0
        for residency in (None, OFFLOAD):
            model = model_bytes(match) if residency is None else offloaded_bytes(match)
            on_device = device_of(match, residency) != CPU
            # A tensor that is read, beside the model.
            least = held + offloaded_bytes(match) + (0 if on_device else model + active.scoring)
            if least <= recipe.memory:
                return residency
    raise ResourceError(
        f"memory: scoring needs about {size(least)} (residency {OFFLOAD}, the least), and the recipe allows "
        f"{size(recipe.memory)}; {_ADVICE}"
    )


def _beside_a_merge(recipe: Recipe, name: str, memory: int) -> Plan:
    params = recipe.method.params if recipe.method.name == name else {}
    method = type(recipe.method).model_validate({"name": name, **params})
    wanted = recipe.model_copy(update={"method": method})
    merge = plan(wanted).models[0].bytes
    found = plan(wanted.model_copy(update={"memory": max(1, memory - merge)}))
    if found.peak_memory + merge > memory:
        raise ResourceError(
            f"memory: comparing {name} needs about {size(found.peak_memory + merge)}, of which {size(merge)} for its "
            f"merge, which is not written; the recipe allows {size(memory)}; {_ADVICE}"
        )
    return found
