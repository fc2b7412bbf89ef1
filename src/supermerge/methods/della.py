"""DELLA: drop elements at random, small ones rather than large ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from supermerge.errors import RecipeError
from supermerge.methods.context import Context
from supermerge.methods.parameters import Number, PositiveFraction, Weights, per_expert
from supermerge.methods.ranking import as_rows, by_rank
from supermerge.methods.registry import Scope, method
from supermerge.methods.task_arithmetic import scaled
from supermerge.methods.transforms import agree_mean, agree_sum, agreeing, elect, weighted, weighted_sum

_PAPER = "https://arxiv.org/abs/2406.11617"
Densities = PositiveFraction | tuple[PositiveFraction, ...]
Window = Annotated[float, Field(ge=0, lt=0.5)]
Rescale = Literal["probability", "l1"]


def _scope(values: Mapping[str, Any]) -> Scope:
    return "tensor" if values["rescale"] == "l1" else "row"


def keep_probability(tau: Tensor, density: float, epsilon: float) -> Tensor:
    """p = density − ε for the smallest magnitude of a row, density + ε for the largest, linear in the rank between."""
    if not 0 < density - epsilon <= density + epsilon <= 1:
        raise RecipeError(
            f"method della: density {density:g} ± epsilon {epsilon:g} leaves the range from 0 to 1.",
            hint="Choose an epsilon smaller than both the density and 1 − density.",
        )
    rows = as_rows(tau)
    n = rows.shape[1]
    place = torch.arange(n) / (n - 1) if n > 1 else torch.tensor([0.5])
    return by_rank(rows, density - epsilon + place * (2 * epsilon)).view(tau.shape)


def thinned(
    base: Tensor, taus: Tensor, *, context: Context, density: Densities, epsilon: float, rescale: Rescale
) -> list[Tensor]:
    """τ̂ᵢ = mᵢ τᵢ / pᵢ, or mᵢ τᵢ with the sum of magnitudes of τᵢ; a density of 1 keeps τᵢ as it is."""
    out = []
    for i, (tau, share) in enumerate(zip(taus, per_expert(density, len(taus)), strict=True)):
        if share == 1:
            out.append(tau)
            continue
        p = keep_probability(tau, share, epsilon)
        kept = context.bernoulli("della", i, p, tau).mul_(tau)
        if rescale == "probability":
            out.append(kept.div_(p))
        else:
            left = float(kept.abs().sum(dtype=torch.float64))
            out.append(kept * (float(tau.abs().sum(dtype=torch.float64)) / left) if left else kept)
    return out


def _agreeing(
    base: Tensor, taus: Tensor, *, context: Context, density: Densities, epsilon: float, rescale: Rescale
) -> list[Tensor]:
    """Every τ̂ᵢ with only the elements that have the elected sign."""
    dropped = thinned(base, taus, context=context, density=density, epsilon=epsilon, rescale=rescale)
    return agreeing(dropped, elect(dropped, tie=1))


@method(
    "della",
    scope=_scope,
    title="DELLA-Merging",
    paper=_PAPER,
    process=_agreeing,
    cost="Reads every file once; a few blocks in memory; ranks and random draws for every element.",
    use="As `dare_ties`, when large elements should be dropped less often than small ones.",
    avoid="Results that must not depend on a seed; models of many billions of elements: `ties` is much quicker.",
)
def della(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    weights: Weights = None,
    density: Densities = 0.7,
    epsilon: Window = 0.07,
    rescale: Rescale = "probability",
    scale: Number = 1.0,
    merge: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Drop, elect, fuse: TIES on task vectors thinned at random by the rank of their elements.

    In every row (along the last dimension) element j is kept with probability pⱼ = density − ε + 2ε · rank(|τⱼ|)/(n −
    1) and divided by pⱼ, so that E[τ̂] = τ; γ = sign(Σᵢ wᵢ τ̂ᵢ), + for zero; θ = θp + scale · mean {τ̂ᵢ : sign τ̂ᵢ =
    γ}, weighted by `weights` (1 each by default). The authors' example drops 0.3 with a window 2ε of 0.14 and scale
    1.1. `rescale: l1` restores the sum of magnitudes of each tensor instead, as mergekit does;
    `merge: sum` adds what agrees instead of averaging it.
    """
    w = list(weights or (1.0,) * len(taus))
    dropped = thinned(base, taus, context=context, density=density, epsilon=epsilon, rescale=rescale)
    dropped = weighted(dropped, w)
    sign = elect(dropped, tie=1)
    change = agree_mean(dropped, sign, w) if merge == "mean" else agree_sum(dropped, sign)
    return change.mul_(scale).add_(base)


@method(
    "della_linear",
    scope=_scope,
    title="DELLA with task arithmetic",
    paper=_PAPER,
    process=thinned,
    cost="Reads every file once; a few blocks in memory; ranks and random draws for every element.",
    use="As `dare_linear`, when large elements should be dropped less often than small ones.",
    avoid="Results that must not depend on a seed.",
)
def della_linear(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    weights: Weights = None,
    density: Densities = 0.7,
    epsilon: Window = 0.07,
    rescale: Rescale = "probability",
    scale: Number | None = None,
) -> Tensor:
    """Task arithmetic on task vectors thinned at random by the rank of their elements.

    τ̂ᵢ as in `della`; θ = θp + scale · Σᵢ wᵢ τ̂ᵢ. Without weights every coefficient is `scale`, 0.3 by default; with
    weights `scale` is 1.
    """
    dropped = thinned(base, taus, context=context, density=density, epsilon=epsilon, rescale=rescale)
    return weighted_sum(base, dropped, scaled(weights, scale, len(taus), 0.3))
