"""The small steps that published methods are composed of: trim, drop, elect, agree, sum. All are pure.

Shapes: `taus [k, *shape]`, one task vector per expert. Experts are always visited in order and multiplication and
addition are separate roundings, so a result does not depend on how a tensor was cut or vectorised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from supermerge.errors import RecipeError


def weighted_sum(base: Tensor, taus: Iterable[Tensor], coefficients: Sequence[float] | Tensor) -> Tensor:
    """θp + Σᵢ cᵢ τᵢ, accumulated expert by expert.

    `taus` gives k tensors of the shape of `base` and may be a stream; `coefficients` is `[k]`, or `[k, rows]` with one
    coefficient per row of the first dimension. An expert whose coefficient is exactly 0 leaves every bit as it is.
    """
    merged = base.clone()
    for c, tau in zip(coefficients, taus, strict=True):
        accumulate(merged, tau, c)
    return merged


def accumulate(merged: Tensor, tau: Tensor, c: Tensor | float, *, scratch: Tensor | None = None) -> None:
    """merged += c τ in place, rounded after the product and after the sum, whatever the hardware could fuse.

    `c` is a number, or `[rows]`; `scratch`, of the shape of `tau` (which it may be), takes the product.
    """
    if isinstance(c, Tensor) and c.ndim:
        merged += torch.mul(tau, c.to(tau).view(-1, *[1] * (tau.ndim - 1)), out=scratch)
    elif float(c) != 0:
        merged += torch.mul(tau, float(c), out=scratch)


def weighted(taus: Tensor, weights: Sequence[float]) -> Tensor:
    """[k, *shape]: wᵢ τᵢ; `taus` itself where every weight is 1."""
    if all(weight == 1 for weight in weights):
        return taus
    return torch.stack([tau * weight for tau, weight in zip(taus, weights, strict=True)])


def summed(taus: Tensor) -> Tensor:
    """Σᵢ τᵢ, accumulated expert by expert."""
    total = taus[0].clone()
    for tau in taus[1:]:
        total += tau
    return total


def normalised(weights: Sequence[float], method: str) -> list[float]:
    """Weights divided by their sum; a sum of zero is a RecipeError."""
    total = sum(weights)
    if abs(total) < 1e-12:
        raise RecipeError(
            f"method {method}: the weights {list(weights)} sum to {total:g} and cannot be normalised.",
            hint="Change a weight, or set normalize: false to use the weights as they are.",
        )
    return [weight / total for weight in weights]


def keep_large(taus: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Every τᵢ with the elements smaller in magnitude than `thresholds[i]` set to zero; ties are kept."""
    return torch.stack([tau * (tau.abs() >= least) for tau, least in zip(taus, thresholds, strict=True)])


def elect(taus: Tensor, tie: int) -> Tensor:
    """Where the sum over the experts is positive; `tie` is the sign that a sum of exactly zero takes."""
    total = summed(taus)
    return total >= 0 if tie > 0 else total > 0


def agreeing(tau: Tensor, positive: Tensor) -> Tensor:
    """Where τ is not zero and has the elected sign."""
    return torch.where(positive, tau > 0, tau < 0)


def agree_sum(taus: Tensor, positive: Tensor) -> Tensor:
    """The sum of the elements that have the elected sign."""
    total = torch.zeros_like(taus[0])
    for tau in taus:
        total += tau * agreeing(tau, positive)
    return total


def agree_mean(taus: Tensor, positive: Tensor, weights: Sequence[float]) -> Tensor:
    """The mean, by `weights`, of the elements that have the elected sign; `taus` are weighted already; 0 where none."""
    total, weight = torch.zeros_like(taus[0]), torch.zeros_like(taus[0])
    for tau, w in zip(taus, weights, strict=True):
        agrees = agreeing(tau, positive)
        total += tau * agrees
        weight += agrees * w
    return total / torch.where(weight.abs() < 1e-8, torch.ones_like(weight), weight)
