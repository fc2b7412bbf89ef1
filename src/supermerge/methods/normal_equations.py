"""Linear systems of measured matrices: solved, regularised by a stated amount, or refused; never pseudo-inverted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from supermerge.errors import DataError
from supermerge.events import emit


def weighted_average(
    matrices: Sequence[Tensor],
    values: Sequence[Tensor],
    ridge: float,
    where: str,
    unseen: Literal["mean", "zero"] = "mean",
) -> Tensor:
    """X [n, m] with Σᵢ (Gᵢ + ρI) X = Σᵢ (Gᵢ + ρ'I) Vᵢ, in fp64; `matrices` Gᵢ [n, n], `values` Vᵢ [n, m].

    ρ = `ridge` times the mean of the diagonals of all Gᵢ. Directions that no Gᵢ has seen take the mean of the Vᵢ
    (ρ' = ρ), or zero (ρ' = 0). Where the sum of the Gᵢ alone is singular to working precision, a warning names `where`
    and ρ; where it still is with ρ, as with `ridge` 0, DataError.
    """
    wide = [matrix.double() for matrix in matrices]
    total = torch.stack(wide).sum(0)
    n, k = len(total), len(wide)
    rho = ridge * float(total.diagonal().mean()) / k
    right = torch.zeros(n, values[0].shape[1], dtype=torch.float64)
    for matrix, value in zip(wide, values, strict=True):
        right += matrix @ value.double() + (rho if unseen == "mean" else 0.0) * value.double()
    singular = rho > 0 and _factor(total) is None
    total.diagonal().add_(k * rho)
    factor = _factor(total)
    if factor is None:
        raise DataError(
            f"{where}: the experts' Gram matrices [{n}, {n}] are singular together: their examples span fewer "
            f"directions than the layer has inputs.",
            hint="Set ridge to a small number above 0, keep less of the off-diagonal elements, or give more examples.",
        )
    if singular:
        emit(
            "warning",
            message=f"{where}: the experts' Gram matrices [{n}, {n}] are singular together; ridge {ridge:g} adds "
            f"{rho:.2g} to every diagonal element, and directions that no example has take "
            f"{'the mean of the experts' if unseen == 'mean' else 'the base'}.",
        )
    return torch.cholesky_solve(right, factor)


def _factor(matrix: Tensor) -> Tensor | None:
    """Its Cholesky factor; None where it is singular to working precision."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal() ** 2
    eps = torch.finfo(torch.float64).eps
    return None if int(failed) or float(pivots.min()) <= len(matrix) * eps * float(pivots.max()) else factor
