"""The small steps that published methods are composed of: trim, drop, elect, agree, sum. All are pure.

Shapes: `taus [k, *shape]`, one task vector per expert. Experts are always visited in order and multiplication and
addition are separate roundings, so a result does not depend on how a tensor was cut or vectorised. Signs and clamps
take the place of comparisons and `where`, which are several times slower on CPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from supermerge.errors import RecipeError

_TINY = 1e-300
Taus = Tensor | Sequence[Tensor]
"""k task vectors: stacked, or one by one where they need not be stacked."""


def weighted_sum(base: Tensor, taus: Iterable[Tensor], coefficients: Sequence[float] | Tensor) -> Tensor:
    """θp + Σᵢ cᵢ τᵢ, accumulated expert by expert.

    `taus` gives k tensors of the shape of `base` and may be a stream; `coefficients` is `[k]`, or `[k, rows]` with one
    coefficient per row of the first dimension. An expert whose coefficient is exactly 0 leaves every bit as it is.
    """
    merged, scratch = base.clone(), torch.empty_like(base)
    for c, tau in zip(coefficients, taus, strict=True):
        accumulate(merged, tau, c, scratch=scratch)
    return merged


def accumulate(merged: Tensor, tau: Tensor, c: Tensor | float, *, scratch: Tensor | None = None) -> None:
    """merged += c τ in place, rounded after the product and after the sum, whatever the hardware could fuse.

    `c` is a number, or `[rows]` (one row for a scalar tensor); `scratch`, of the shape of `tau` (which it may be),
    takes the product.
    """
    if isinstance(c, Tensor) and c.ndim:
        per_row = c.to(device=tau.device, dtype=tau.dtype).view([-1] + [1] * (tau.ndim - 1) if tau.ndim else [])
        merged += torch.mul(tau, per_row, out=scratch)
    elif float(c) != 0:
        merged += torch.mul(tau, float(c), out=scratch)


def weighted(taus: Taus, weights: Sequence[float]) -> list[Tensor]:
    """[wᵢ τᵢ], k tensors."""
    return [tau if weight == 1 else tau * weight for tau, weight in zip(taus, weights, strict=True)]


def summed(taus: Taus) -> Tensor:
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


def keep_large(tau: Tensor, least: float) -> Tensor:
    """τ with the elements smaller in magnitude than `least` set to zero; ties are kept."""
    # hardshrink keeps what is strictly larger than its threshold, so it gets the next fp32 number below `least`.
    below = float(np.nextafter(np.float32(least), np.float32(0)))
    return F.hardshrink(tau, below)


def elect(taus: Taus, tie: int) -> Tensor:
    """+1 where the sum over the experts is positive, −1 where negative; `tie` where it is exactly zero.

    Three experts and more are summed in fp64, where fp32 numbers of similar size add up exactly: rounding, which
    depends on the order of the experts, must not choose a sign.
    """
    if len(taus) < 3:
        return torch.sign(2 * torch.sign(summed(taus)) + tie)
    total = taus[0].to(torch.float64, copy=True)
    for tau in taus[1:]:
        total += tau
    # Far smaller than any sum of fp32 numbers that is not zero.
    return total.add_(tie * _TINY).sign_().to(taus[0].dtype)


def agreeing(taus: Taus, sign: Tensor) -> list[Tensor]:
    """Every τᵢ with only the elements that have the elected sign, k tensors."""
    return [torch.relu(tau * sign) * sign for tau in taus]


def agree_sum(taus: Taus, sign: Tensor) -> Tensor:
    """The sum of the elements that have the elected sign."""
    total, scratch = torch.zeros_like(sign), torch.empty_like(sign)
    for tau in taus:
        total += torch.mul(tau, sign, out=scratch).relu_()
    return total.mul_(sign)


def agree_mean(taus: Taus, sign: Tensor, weights: Sequence[float]) -> Tensor:
    """The mean, by `weights`, of the elements that have the elected sign; `taus` are weighted already; 0 where none."""
    total, weight, scratch = torch.zeros_like(sign), torch.zeros_like(sign), torch.empty_like(sign)
    for tau, w in zip(taus, weights, strict=True):
        agrees = torch.mul(tau, sign, out=scratch).relu_()
        total += agrees
        weight += agrees.sign_() if w == 1 else agrees.sign_().mul_(w)
    return total.mul_(sign).div_(_nonzero(weight, weights))


def _nonzero(weight: Tensor, weights: Sequence[float]) -> Tensor:
    """Divisors: 1 in place of 0, which only stands under 0 unless weights of both signs cancel."""
    if min(weights) > 0:
        return weight.clamp_(min=min(weights))
    return torch.where(weight.abs() < 1e-8, torch.ones_like(weight), weight)


def combine(taus: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Σᵢ cᵢ τᵢ."""
    return weighted_sum(torch.zeros_like(taus[0]), taus, coefficients)


def combination(base: Tensor, taus: Tensor, c0: float, coefficients: Sequence[float]) -> Tensor:
    """c0 θp + Σᵢ cᵢ τᵢ."""
    return weighted_sum(base if c0 == 1 else base * c0, taus, coefficients)
