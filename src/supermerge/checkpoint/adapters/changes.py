"""What an adapter does to one tensor W, seen as a matrix [rows, columns]: rows in float64 in, rows in float64 out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from supermerge.checkpoint.source import TensorSource

Rows = Callable[[Tensor, int], Tensor]
"""Rows of W [m, columns] and the index of the first -> the same rows of the fine-tuned W."""
Stored = tuple[TensorSource, str]
"""A tensor: a source and a name in it."""


class Change(Protocol):
    """A change of one tensor, whose own tensors are read when it is loaded."""

    def load(self, blocks: Callable[[], Iterable[Tensor]]) -> Rows:
        """Read what the change consists of; `blocks()` goes through all rows of W, from the first to the last."""
        ...


@dataclass(frozen=True, slots=True)
class LowRank:
    """LoRA: W + s · L · R, with L [rows, r] and R [r, columns].

    L and R are B and A; where W is stored transposed, as in an embedding or GPT-2's Conv1D, they are Aᵀ and Bᵀ. The
    kernels of a convolution are flattened. LoRA: https://arxiv.org/abs/2106.09685
    """

    left: Stored
    right: Stored
    scale: float
    transposed: bool

    @property
    def rank(self) -> int:
        """r, from the header."""
        source, name = self.left
        return source.tensors[name].shape[0 if self.transposed else 1]

    def factors(self) -> tuple[Tensor, Tensor]:
        """Read s · L [rows, r] and R [r, columns], in float64."""
        left, right = (_matrix(stored, self.transposed) for stored in (self.left, self.right))
        return left * self.scale, right

    def load(self, blocks: Callable[[], Iterable[Tensor]]) -> Rows:
        """Read both factors."""
        left, right = self.factors()

        def rows(values: Tensor, first: int) -> Tensor:
            return values + left[first : first + len(values)] @ right

        return rows


@dataclass(frozen=True, slots=True)
class Directed:
    """DoRA: m · V / ‖V‖ with V = W + s · L · R; one magnitude, and one norm, per output.

    Outputs are rows, or columns where W is stored transposed. DoRA: https://arxiv.org/abs/2402.09353
    """

    inner: LowRank
    magnitude: Stored

    def load(self, blocks: Callable[[], Iterable[Tensor]]) -> Rows:
        """Read the factors and the magnitudes; where outputs are columns, go once through W for their norms."""
        inner, magnitude = self.inner.load(blocks), _vector(self.magnitude)
        if not self.inner.transposed:

            def scaled_rows(values: Tensor, first: int) -> Tensor:
                moved = inner(values, first)
                return moved * (magnitude[first : first + len(values)] / moved.norm(dim=1))[:, None]

            return scaled_rows
        squares, first = torch.zeros_like(magnitude), 0
        for values in blocks():
            squares += inner(values, first).pow(2).sum(dim=0)
            first += len(values)
        scales = magnitude / squares.sqrt()
        return lambda values, first: inner(values, first) * scales


@dataclass(frozen=True, slots=True)
class Rescaled:
    """IA3: ℓ ⊙ W, one learned scale per row of W, or per column. (IA)³: https://arxiv.org/abs/2205.05638"""

    scales: Stored
    by_row: bool

    def load(self, blocks: Callable[[], Iterable[Tensor]]) -> Rows:
        """Read the scales."""
        scales = _vector(self.scales)
        if self.by_row:
            return lambda values, first: values * scales[first : first + len(values), None]
        return lambda values, first: values * scales


@dataclass(frozen=True, slots=True)
class Shifted:
    """A bias b + s · b′, b′ being the bias of LoRA's B (`lora_bias`)."""

    shift: Stored
    scale: float

    def load(self, blocks: Callable[[], Iterable[Tensor]]) -> Rows:
        """Read the shift."""
        shift = _vector(self.shift)[:, None] * self.scale
        return lambda values, first: values + shift[first : first + len(values)]


@dataclass(frozen=True, slots=True)
class Changed:
    """A tensor that differs from the model's: `change` applied to `stored`, or `stored` itself."""

    stored: Stored
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What an adapter makes of a model.

    `changed`: name in the model -> what becomes of it. `trained`: such names -> those of the model, without PEFT's
    prefix, in which the adapter was trained, where the adapter has them.
    """

    changed: Mapping[str, Changed]
    trained: Mapping[str, str]


def _matrix(stored: Stored, transposed: bool) -> Tensor:
    values = stored[0].read(stored[1]).double().flatten(1)
    return values.T.contiguous() if transposed else values


def _vector(stored: Stored) -> Tensor:
    return stored[0].read(stored[1]).double().flatten()
