"""Where task vectors, and the model, lie while a run works: the choice within a memory budget.

In order of exactness, and of speed among equals: in memory (`memory`), streamed from the disk in every step (`disk`),
and with the model's own weights streamed as well (`offload`). All three give the same bytes. Several processes hold
the model together instead, each its rows (`sharded`). Compressed task vectors are never chosen by themselves: they hold
more than streaming and are not exact; all they buy is fewer bytes per step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from supermerge.distributed import processes
from supermerge.methods.settings import LearnSettings
from supermerge.plan.learning import PlannedLearning
from supermerge.plan.memory import OFFLOAD, SHARDED
from supermerge.plan.phases import Phases
from supermerge.recipe import Recipe

_EXACT = ("memory", "disk", OFFLOAD, SHARDED)
_COMPRESSED = ("bf16", "int8", "tvq4", "rtvq")


@dataclass(frozen=True, slots=True)
class Residency:
    """One way to keep what is worked on. Sizes are bytes; `step_reads` is what one step of learning reads."""

    name: str
    exact: bool
    holds: int
    step_reads: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """The residency of a run, its phases, and all that were considered, the one chosen among them."""

    name: str | None
    phases: Phases
    considered: tuple[Residency, ...]


def choose(recipe: Recipe, phases: Callable[[str | None], Phases]) -> Chosen:
    """The first that fits, or else the one that needs least; `phases` are those of a run with a given residency.

    A recipe's own `residency` is left as it is. Without a budget task vectors are not kept in memory: the system's file
    cache has them there as long as nothing else needs the room.
    """
    usual = phases(None)
    settings = usual.learning.settings if usual.learning else None
    names = _ladder(recipe, settings)
    found = {name: usual if name is None else phases(name) for name in names}
    fitting = [name for name in names if found[name].peak <= found[name].room]
    chosen = fitting[0] if fitting else min(names, key=lambda name: (found[name].peak, found[name].held))
    considered = [_row(name, found[name]) for name in names if name is not None]
    if settings is not None and settings.residency == "auto" and recipe.memory is not None and chosen != "memory":
        considered += [_row(name, phases(name)) for name in _COMPRESSED]
    return Chosen(chosen, found[chosen], tuple(considered))


def _ladder(recipe: Recipe, settings: LearnSettings | None) -> list[str | None]:
    if settings is None:
        return [None, OFFLOAD] if recipe.tasks else [None]
    if settings.residency == SHARDED and processes() == 1:
        return ["disk"]
    if settings.residency != "auto":
        return [settings.residency]
    exact: list[str | None] = ["disk"]
    if processes() > 1:
        exact.append(SHARDED)
    elif settings.precision == "fp32":
        exact.append(OFFLOAD)
    return exact if recipe.memory is None else ["memory", *exact]


def _row(name: str, phases: Phases) -> Residency:
    reads = phases.learning.step_reads if phases.learning else 0
    return Residency(name, name in _EXACT, phases.peak, reads, phases.peak <= phases.room)


def with_residency(learning: PlannedLearning | None, name: str | None) -> PlannedLearning | None:
    """The same learning, with task vectors elsewhere."""
    if learning is None or name is None:
        return learning
    return replace(learning, settings=learning.settings.model_copy(update={"residency": name}))
