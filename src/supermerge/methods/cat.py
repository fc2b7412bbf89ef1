"""CAT merging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.measured import Statistics
from supermerge.methods.parameters import NonNegative, Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import RELATIVE_TOLERANCE, svd
from supermerge.methods.transforms import summed, weighted_sum

Count = Annotated[int, Field(ge=0)]


@method(
    "cat",
    scope="tensor",
    title="Conflict-aware task merging (CAT)",
    paper="https://arxiv.org/abs/2505.06977",
    statistics=("gram", "norm_moments"),
    cost="Measures twice per expert: a forward pass over its examples for the Gram matrices of RegMean, one for the "
    "normalisations; kept beside the expert. Then an eigendecomposition of outputs × outputs per layer and expert.",
    use="What task arithmetic is used for, where there are some unlabelled examples: a handful per task are enough.",
    avoid="Very wide outputs, whose matrices are decomposed.",
)
def cat(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    statistics: Statistics,
    scale: Number = 0.4,
    directions: Count = 4,
    preserve: NonNegative = 5.0,
    scales: Count = 4,
    preserve_scales: NonNegative = 10.0,
    biases: Count = 4,
    rescale: bool = True,
) -> Tensor:
    """Task arithmetic on task vectors without the directions in which they disturb the other tasks most.

    θ = θp + scale · Σᵢ τ̃ᵢ. For the weight of a linear layer with inputs x, Gᵢ = E x xᵀ on task i: for every task k,
    Bₖ = the `directions` leading eigenvectors, with positive eigenvalues, of Σ_{i≠k} τᵢ (Gₖ − preserve · Gᵢ) τᵢᵀ; τ̃ᵢ is
    τᵢ less its projection on the span of all Bₖ, k ≠ i. For the scale of a normalisation, whose normalised inputs are
    x̂: τ̃ᵢ is τᵢ without the `scales` elements, for every k ≠ i, where Σ_{j≠k} τⱼ² E(x̂ₖ² − preserve_scales · x̂ⱼ²) is
    largest; for biases without the `biases` elements where Σ_{j≠k} τⱼ² is. `rescale` gives what is left of weights and
    scales the norm of the whole. Other tensors are summed as they are.

    Departs from the authors' code, as far as ports of it show: inputs are those of the experts, not of the base plus
    `scale` times a task vector; projections of an expert are taken together, so that the order of the experts does not
    matter; eigenvectors are those of the largest eigenvalues, as in the paper.
    """
    if statistics.of("gram") is not None:
        turned = list(taus.transpose(1, 2)) if statistics.inputs_first else list(taus)
        parts = _without_directions(turned, statistics.of("gram") or (), directions, preserve)
        left = [part.T for part in parts] if statistics.inputs_first else parts
    elif (moments := statistics.of("norm_moments")) is not None:
        left = _without_elements(taus, [moment.to(taus) for moment in moments], scales, preserve_scales)
    elif len(context.shape) == 1 and context.name.rpartition(".")[2] == "bias":
        left, rescale = _without_elements(taus, [torch.ones_like(base)] * len(taus), biases, 0.0), False
    else:
        left, rescale = list(taus), False
    whole = zip(left, taus, strict=True)
    return weighted_sum(base, [_rescaled(part, tau) if rescale else part for part, tau in whole], [scale] * len(taus))


def _without_directions(taus: Sequence[Tensor], grams: Sequence[Tensor], count: int, preserve: float) -> list[Tensor]:
    """[outputs, inputs] each: less the directions of outputs in which it disturbs any other task most."""
    wide, inputs = [tau.double() for tau in taus], [gram.double() for gram in grams]
    bases = []
    for k in range(len(wide)):
        conflict = torch.zeros(len(wide[0]), len(wide[0]), dtype=torch.float64)
        for i in range(len(wide)):
            if i != k:
                conflict += wide[i] @ (inputs[k] - preserve * inputs[i]) @ wide[i].T
        values, vectors = torch.linalg.eigh((conflict + conflict.T) / 2)
        positive = int((values > RELATIVE_TOLERANCE * values.abs().max()).sum())
        bases.append(vectors[:, len(values) - min(count, positive) :])
    left = []
    for i, tau in enumerate(wide):
        others = [basis for k, basis in enumerate(bases) if k != i]
        span = svd(torch.cat(others, dim=1)).u if others else tau[:, :0]
        left.append((tau - span @ (span.T @ tau)).to(taus[i]))
    return left


def _without_elements(taus: Tensor, moments: Sequence[Tensor], count: int, preserve: float) -> list[Tensor]:
    """[d] each: less the elements in which it disturbs any other task most."""
    kept = [torch.ones_like(tau) for tau in taus]
    for k in range(len(taus)):
        others = [i for i in range(len(taus)) if i != k]
        if others:
            conflict = summed([taus[i] ** 2 * (moments[k] - preserve * moments[i]) for i in others])
            worst = conflict.argsort(descending=True, stable=True)[:count]
            for i in others:
                kept[i][worst] = 0
    return [tau * mask for tau, mask in zip(taus, kept, strict=True)]


def _rescaled(part: Tensor, whole: Tensor) -> Tensor:
    """`part` with the norm of `whole`, unless nothing is left of it."""
    left = part.double().norm()
    return part * (whole.double().norm() / left).to(part) if left > 0 else part
