"""DARE: drop elements of the task vectors at random and rescale the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import DropRates, Number, Weights, per_expert
from supermerge.methods.registry import method
from supermerge.methods.task_arithmetic import scaled
from supermerge.methods.transforms import agree_mean, elect, weighted, weighted_sum

_PAPER = "https://arxiv.org/abs/2311.03099"


def drop_and_rescale(taus: Tensor, drop: DropRates, context: Context) -> Tensor:
    """τ̂ᵢ = mᵢ τᵢ / (1 − pᵢ), every element kept with probability 1 − pᵢ, so that E[τ̂ᵢ] = τᵢ."""
    dropped = []
    for i, (tau, p) in enumerate(zip(taus, per_expert(drop, len(taus)), strict=True)):
        dropped.append(tau / (1 - p) * context.bernoulli("dare", i, 1 - p, tau) if p else tau)
    return torch.stack(dropped)


@method("dare_linear", scope="element", title="DARE with task arithmetic", paper=_PAPER, aliases=("dare",))
def dare_linear(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    weights: Weights = None,
    drop: DropRates = 0.9,
    scale: Number | None = None,
) -> Tensor:
    """Task arithmetic on thinned task vectors.

    τ̂ᵢ = mᵢ ⊙ τᵢ / (1 − drop), mᵢ ~ Bernoulli(1 − drop) per element; θ = θp + scale · Σᵢ wᵢ τ̂ᵢ. Without weights every
    coefficient is `scale`, 0.3 by default; with weights `scale` is 1. Works while task vectors are small (|τ| below
    about 0.03, says the paper); `drop: 0` is task arithmetic.
    """
    return weighted_sum(base, drop_and_rescale(taus, drop, context), scaled(weights, scale, len(taus), 0.3))


@method("dare_ties", scope="element", title="DARE with sign election", paper=_PAPER)
def dare_ties(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    weights: Weights = None,
    drop: DropRates = 0.9,
    scale: Number = 1.0,
) -> Tensor:
    """TIES on thinned task vectors: the random drop takes the place of the trim.

    τ̂ᵢ as in `dare_linear`; γ = sign(Σᵢ wᵢ τ̂ᵢ), + for a sum of zero; θ = θp + scale · mean {τ̂ᵢ : sign τ̂ᵢ = γ},
    weighted by `weights` (1 each by default). `drop: 0` is `ties` with `density: 1` and `zero_sign: positive`.
    """
    w = list(weights or (1.0,) * len(taus))
    thinned = weighted(drop_and_rescale(taus, drop, context), w)
    return base + scale * agree_mean(thinned, elect(thinned, tie=1), w)
