"""Where the inputs that a lock file names are now: the recipe that reads exactly them again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supermerge.checkpoint import place_of
from supermerge.errors import CheckpointError
from supermerge.lock import Lock, LockedSource
from supermerge.recipe import Expert, Recipe


@dataclass(frozen=True, slots=True)
class Inputs:
    """`recipe` has the base and the experts that are still there; None without base or without any expert."""

    recipe: Recipe | None
    unreachable: tuple[str, ...]


def reachable(lock: Lock, recipe: Recipe) -> Inputs:
    """The inputs of `lock`, found beside `recipe` (as its directory lies now), where they were, or in the hub's cache.

    A hub id is read at the revision that was merged, and never downloaded.
    """
    if recipe.mergekit is not None:
        return _of_mergekit(lock, recipe)
    base = _place(recipe.base, lock.base)
    experts = {
        name: found
        for name, expert in recipe.experts.items()
        if (found := _found(expert, lock.experts[name])) is not None
    }
    if base is None or not experts:
        return Inputs(None, ("base", *recipe.experts) if base is None else tuple(recipe.experts))
    lost = tuple(name for name in recipe.experts if name not in experts)
    return Inputs(recipe.model_copy(update={"base": base, "experts": experts}), lost)


def _of_mergekit(lock: Lock, recipe: Recipe) -> Inputs:
    """mergekit's recipes say where their models are in many places: all of them are on the disk, or none is read."""
    refs = {"base": recipe.base, **{name: str(expert.model) for name, expert in recipe.experts.items()}}
    lost = tuple(name for name, ref in refs.items() if not Path(ref).exists())
    return Inputs(None if lost else recipe, lost)


def _found(expert: Expert, locked: LockedSource) -> Expert | None:
    """The expert where it lies now; an adapter together with its model, where it has one of its own."""
    if expert.adapter is None:
        model = _place(expert.ref, locked)
        return None if model is None else expert.model_copy(update={"model": model})
    adapter = _place(expert.adapter, locked)
    model = None if expert.model is None or locked.under is None else _place(expert.model, locked.under)
    if adapter is None or (expert.model is not None and model is None):
        return None
    return expert.model_copy(update={"adapter": adapter, "model": model})


def _place(written: str, locked: LockedSource) -> str | None:
    if locked.revision is None:
        return next((ref for ref in (written, locked.ref) if Path(ref).exists()), None)
    if locked.path is not None and Path(locked.path).exists():
        return locked.path
    pinned = f"{locked.ref.partition('@')[0]}@{locked.revision}"
    try:
        place_of(pinned, offline=True)
    except CheckpointError:
        return None
    return pinned
