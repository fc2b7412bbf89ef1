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

    With side `elements` it has the shape of the tensor that it belongs to and may be read in pieces; with `inputs` or
    `outputs` it is a square matrix that belongs to the weight of a linear layer; with `scales` it has the shape of a
    normalisation's scale; with `tensor` it is one number per tensor, with `model` one number.

    `labelled` says that it cannot be measured without labels, `of_merge` that it depends on the other experts and on
    the method's parameters, `of_base` that it is measured of the base; that and what is `on_all` is measured on the
    examples of all tasks. At most `most` examples of a task are looked at: 1,000, as by the authors of RegMean and
    MaTS, unless said otherwise.
    """

    side: Literal["elements", "inputs", "outputs", "scales", "tensor", "model"]
    words: str
    labelled: bool = False
    of_base: bool = False
    of_merge: bool = False
    on_all: bool = False
    most: int = 1000

    @property
    def elementwise(self) -> bool:
        """Whether it has the shape of its tensor."""
        return self.side == "elements"


KINDS: Mapping[str, Kind] = {
    "fisher_exact": Kind("elements", "the mean over examples of Σ_y p(y|x) (∂ log p(y|x) / ∂θ)²"),
    "fisher_sampled": Kind("elements", "the same with one y drawn from p(y|x) per example"),
    "fisher_empirical": Kind("elements", "the same with the example's own label for y", labelled=True),
    "base_fisher_exact": Kind("elements", "fisher_exact of the base", of_base=True),
    "base_fisher_sampled": Kind("elements", "fisher_sampled of the base", of_base=True),
    "base_fisher_empirical": Kind("elements", "fisher_empirical of the base", labelled=True, of_base=True),
    "gram": Kind("inputs", "of a linear layer, the mean over tokens of x xᵀ, x its input"),
    "merged_gram": Kind("inputs", "the same with earlier layers merged already", of_merge=True, most=256),
    "norm_moments": Kind("scales", "of a normalisation, the mean over tokens of x̂², x̂ what its scale multiplies"),
    "gradient_gram_sampled": Kind(
        "outputs", "of a linear layer, the mean over tokens of g gᵀ, g = ∂ log p(y|x) / ∂ output, y drawn from p(y|x)"
    ),
    "gradient_gram_empirical": Kind("outputs", "the same with the example's own label for y", labelled=True),
    "sensitivity_sampled": Kind("tensor", "the mean over examples of Σ |θ ∂ log p(y|x) / ∂θ|, y drawn from p(y|x)"),
    "sensitivity_empirical": Kind("tensor", "the same with the example's own label for y", labelled=True),
    "alignment": Kind(
        "model", "the sum over the other experts of the mean distance of logits on their tasks", on_all=True, most=100
    ),
}

Estimator = Literal["exact", "sampled", "empirical"]
"""Which y a Fisher information is taken over."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of one tensor, or of the piece of it at hand.

    `values[kind]` has one tensor per expert (one in all for the base's kinds); a kind that the tensor has none of (a
    Gram matrix of a bias) is not in it. `sizes[kind]` are the root mean squares over all of an expert's elements of
    that kind. `inputs_first` says that the tensor is a linear layer's weight stored as [inputs, outputs] (GPT-2), not
    [outputs, inputs].
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
        ones = {kind: tuple(shape) if KINDS[kind].elementwise else own_shape(kind, context.shape) for kind in kinds}
        found = {
            kind: [torch.ones(one) if KINDS[kind].side not in ("inputs", "outputs") else torch.eye(one[0])]
            * (1 if KINDS[kind].of_base else len(context.experts))
            for kind, one in ones.items()
            if one is not None
        }
        return Statistics(found, {kind: [1.0] * len(context.experts) for kind in kinds})


def own_shape(kind: str, shape: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of a statistic of a tensor of `shape`; None where a tensor of that shape has no such statistic."""
    match KINDS[kind].side:
        case "elements":
            return tuple(shape)
        case "inputs" | "outputs":
            side = shape[-1 if KINDS[kind].side == "inputs" else 0] if len(shape) == 2 else 0
            return (side, side) if len(shape) == 2 else None
        case "scales":
            return tuple(shape) if len(shape) == 1 else None
        case "tensor" | "model":
            return ()
