"""Tensors whose task vectors all are products of thin matrices: merged as these, one block of rows made at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from supermerge.checkpoint import Match, require_finite
from supermerge.checkpoint.adapters import AdapterView, LowRank, adapter_of
from supermerge.methods import BLOCK
from supermerge.methods.factored import Factors


class Thin:
    """The tensors of a match of which no expert changes more than its LoRA factors say, or anything at all."""

    def __init__(self, match: Match) -> None:
        self._match = match
        self.adapters = {name: adapter_of(match.base, source) for name, source in match.experts.items()}
        self._all: Sequence[AdapterView] = [view for view in self.adapters.values() if view is not None]

    def has(self, name: str) -> bool:
        """Whether the task vectors of a tensor are factors, or zero, in every expert."""
        if len(self._all) < len(self.adapters):
            return False
        changes = [view.changed.get(name) for view in self._all]
        return all(
            change is None or (isinstance(change.change, LowRank) and change.stored[0] is not view.store)
            for change, view in zip(changes, self._all, strict=True)
        )

    def rank(self, name: str) -> int:
        """Σᵢ rᵢ of a tensor that `has` factors."""
        return sum(change.rank for change in self._changes(name) if change is not None)

    def taus(self, name: str) -> list[Factors]:
        """The factors of a tensor, seen as a matrix, of every expert. CheckpointError for NaN or infinity in them."""
        rows, columns = matrix_shape(self._match.base.tensors[name].shape)
        found: list[Factors] = []
        for expert, change in zip(self.adapters, self._changes(name), strict=True):
            if change is None:
                found.append(Factors.zero(rows, columns))
                continue
            for source, stored in (change.left, change.right):
                require_finite(source.read(stored), name=stored, label=f"expert {expert!r} ({source.label})")
            found.append(Factors(*change.factors()))
        return found

    def _changes(self, name: str) -> list[LowRank | None]:
        changes = [view.changed.get(name) for view in self._all]
        return [
            change.change if change is not None and isinstance(change.change, LowRank) else None for change in changes
        ]


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """A tensor's shape as that of a matrix: the first dimension, and the product of the rest."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Rows in blocks whose places depend on the shape alone."""
    step = max(1, BLOCK // max(1, columns))
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def add_products(total: Tensor, taus: Sequence[Factors]) -> None:
    """⟨τᵢ, τⱼ⟩ = ⟨LᵢᵀLⱼ, RᵢRⱼᵀ⟩, added to `total [k, k]`."""
    for i, one in enumerate(taus):
        for j, other in enumerate(taus):
            total[i, j] += ((one.left.T @ other.left) * (one.right @ other.right.T)).sum()
