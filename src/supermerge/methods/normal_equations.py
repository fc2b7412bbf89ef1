"""Linear systems of measured matrices: solved, regularised by a stated amount, or refused; never pseudo-inverted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supermerge.errors import DataError


def weighted_average(matrices: Sequence[Tensor], values: Sequence[Tensor], ridge: float, where: str) -> Tensor:
    """X [n, m] with Σᵢ (Gᵢ + ρI) X = Σᵢ (Gᵢ + ρI) Vᵢ, in fp64; `matrices` Gᵢ [n, n], `values` Vᵢ [n, m].

    ρ = `ridge` times the mean of the diagonals of all Gᵢ: directions that no Gᵢ has seen take the mean of the Vᵢ.
    Raises DataError, naming `where`, when the sum is singular to working precision.
    """
    wide = [matrix.double() for matrix in matrices]
    total = torch.stack(wide).sum(0)
    n, k = len(total), len(wide)
    rho = ridge * float(total.diagonal().mean()) / k
    right = torch.zeros(n, values[0].shape[1], dtype=torch.float64)
    for matrix, value in zip(wide, values, strict=True):
        right += matrix @ value.double() + rho * value.double()
    total.diagonal().add_(k * rho)
    factor, failed = torch.linalg.cholesky_ex(total)
    pivots = factor.diagonal() ** 2
    if int(failed) or float(pivots.min()) <= n * torch.finfo(torch.float64).eps * float(pivots.max()):
        raise DataError(
            f"{where}: the experts' Gram matrices [{n}, {n}] are singular together: their examples span fewer "
            f"directions than the layer has inputs.",
            hint="Set ridge to a small number above 0, keep less of the off-diagonal elements, or give more examples.",
        )
    return torch.cholesky_solve(right, factor)
