"""What was measured of the experts on their own tasks' data, as a method sees it: tensor by tensor, piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from supermerge.methods.context import Context


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of statistic.

    An `elementwise` one has the shape of the tensor that it belongs to and may be read in pieces; another one is a
    matrix that belongs to a linear layer. `labelled` says that it cannot be measured without labels.
    """

    elementwise: bool
    labelled: bool
    words: str


KINDS: Mapping[str, Kind] = {
    "fisher_exact": Kind(True, False, "the mean over examples of Σ_y p(y|x) (∂ log p(y|x) / ∂θ)²"),
    "fisher_sampled": Kind(True, False, "the same with one y drawn from p(y|x) per example"),
    "fisher_empirical": Kind(True, True, "the same with the example's own label for y"),
    "gram": Kind(False, False, "of a linear layer, the mean over tokens of x xᵀ, x its input"),
}

Estimator = Literal["exact", "sampled", "empirical"]
"""Which y a Fisher information is taken over."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of one tensor, or of the piece of it at hand.

    `values[kind]` has one tensor per expert; a kind that the tensor has none of (a Gram matrix of a bias) is not in
    it. `sizes[kind]` are the root mean squares over all of an expert's elements of that kind. `inputs_first` says that
    the tensor is a linear layer's weight stored as [inputs, outputs] (GPT-2), not [outputs, inputs].
    """

    values: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    sizes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    inputs_first: bool = False

    def of(self, kind: str) -> Sequence[Tensor] | None:
        """One tensor per expert, or None where this tensor has no such statistic."""
        return self.values.get(kind)


class Measured(ABC):
    """The statistics of all experts."""

    @abstractmethod
    def of(self, kinds: Sequence[str], context: Context, shape: Sequence[int]) -> Statistics:
        """Those of the tensor called `context.name`, of its elements from `context.offset` on, in `shape`."""


class Even(Measured):
    """Every statistic is 1, or the identity: what parameters are tried out with before anything is measured."""

    def of(self, kinds: Sequence[str], context: Context, shape: Sequence[int]) -> Statistics:
        """Ones in the shape of the piece, identities for matrices."""
        k = len(context.experts)
        found = {
            kind: [torch.ones(*shape) if KINDS[kind].elementwise else torch.eye(context.shape[-1])] * k
            for kind in kinds
            if KINDS[kind].elementwise or len(context.shape) == 2
        }
        return Statistics(found, {kind: [1.0] * k for kind in kinds})
