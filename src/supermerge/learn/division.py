"""Which tensors are learned as the factors that adapters hold, which as dense task vectors, and which not at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from supermerge.checkpoint import Checkpoint, Renamed, TensorInfo, TensorSource
from supermerge.checkpoint.adapters import Changed, Directed, LowRank, Rescaled, adapter_of

Part = LowRank | Rescaled | None
"""What one expert makes of a tensor of the base: W + s · L · R, ℓ ⊙ W, or nothing."""


@runtime_checkable
class _Bound(Protocol):
    """A source under the names of a model."""

    @property
    def stored(self) -> Renamed:
        """Its tensors that are stored as the model has them, under the same names."""
        ...


@dataclass(frozen=True, slots=True)
class Division:
    """How the tensors of a merge are learned; those that are in neither are learned as dense task vectors.

    `factored`: name → what every expert makes of it. `untouched`: no expert changes it. `notes` say which tensors might
    have been factored, and why they are not.
    """

    factored: Mapping[str, tuple[Part, ...]]
    untouched: frozenset[str]
    notes: tuple[str, ...]

    def dense(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are learned as dense task vectors."""
        return [name for name in names if name not in self.factored and name not in self.untouched]


def divide(base: TensorSource, experts: Mapping[str, TensorSource], names: Iterable[str], *, by_row: bool) -> Division:
    """Divide the tensors `names` of `base`, which every expert has under the same name.

    Where an expert is no adapter on the base, every task vector is dense. `by_row` says that every row has a
    coefficient of its own.
    """
    origin = _checkpoint_of(base)
    views = {name: None if origin is None else adapter_of(origin, _stored(expert)) for name, expert in experts.items()}
    whole = [name for name, view in views.items() if view is None]
    if whole or origin is None:
        mixed = len(whole) < len(experts)
        note = f"{', '.join(whole)}: no adapter on the base, so all task vectors are dense"
        return Division({}, frozenset(), (note,) if mixed else ())
    known = _stored(base).tensors
    factored: dict[str, tuple[Part, ...]] = {}
    untouched: set[str] = set()
    reasons: Counter[str] = Counter()
    for name in names:
        changes = [view.changed.get(name) if view is not None else None for view in views.values()]
        if name not in known:
            continue  # fused of several stored tensors
        if not any(changes):
            untouched.add(name)
            continue
        reason = _reason(known[name], changes, by_row)
        if reason is None:
            factored[name] = tuple(_part(change) for change in changes)
        elif len(known[name].shape) > 1:
            reasons[reason] += 1
    notes = tuple(f"{count:,} tensor(s) learned as dense task vectors: {reason}" for reason, count in reasons.items())
    return Division(factored, frozenset(untouched), notes)


def _reason(info: TensorInfo, changes: Iterable[Changed | None], by_row: bool) -> str | None:
    """Why a tensor is not factored; None where it is."""
    parts = [change for change in changes if change is not None]
    if len(info.shape) != 2:
        return "no matrices"
    if any(isinstance(part.change, Directed) for part in parts):
        return "DoRA scales by norms, which are no factors"
    if not all(isinstance(part.change, LowRank | Rescaled) and _on_the_base(part) for part in parts):
        return "trained whole"
    scaled = {part.change.by_row for part in parts if isinstance(part.change, Rescaled)}
    if len(scaled) > 1 or (by_row and False in scaled):
        return "IA3 scales their columns, and coefficients or other experts their rows"
    rank = sum(part.change.rank for part in parts if isinstance(part.change, LowRank))
    if rank * sum(info.shape) > math.prod(info.shape):
        return "the factors of all experts are larger than the tensor"
    return None


def _on_the_base(change: Changed) -> bool:
    """Whether what is changed is the base's tensor, not one that the adapter brings."""
    return isinstance(change.stored[0], Checkpoint)


def _part(change: Changed | None) -> Part:
    return change.change if change is not None and isinstance(change.change, LowRank | Rescaled) else None


def _stored(source: TensorSource) -> TensorSource:
    return source.stored if isinstance(source, _Bound) else source


def _checkpoint_of(source: TensorSource) -> Checkpoint | None:
    """The checkpoint that `source` shows under other names."""
    found = _stored(source)
    while isinstance(found, Renamed):
        found = found.source
    return found if isinstance(found, Checkpoint) else None
