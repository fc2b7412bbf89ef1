"""Task vectors as products of two thin matrices, as low-rank adapters give them, and what needs no more than these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.spectral import Svd, svd


@dataclass(frozen=True, slots=True)
class Factors:
    """τ = left · right, with left [m, r] and right [r, n] in fp64. τ is zero where r is 0."""

    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """r: what τ's rank is at most."""
        return self.left.shape[1]

    @staticmethod
    def zero(rows: int, columns: int) -> Factors:
        """A task vector of zeros."""
        return Factors(torch.zeros(rows, 0, dtype=torch.float64), torch.zeros(0, columns, dtype=torch.float64))

    def svd(self, rank: int | None = None) -> Svd:
        """The decomposition of τ up to its numerical rank, at most `rank`, from two thin QR and a core [r, r]."""
        left, upper = torch.linalg.qr(self.left)
        right, lower = torch.linalg.qr(self.right.T)
        core = svd(upper @ lower.T, rank)
        return Svd(left @ core.u, core.s, core.vh @ right.T)


FactoredMerge = Callable[[Sequence[Factors], Context], Factors]
"""τ₁ … τ_k of one tensor, seen as a matrix [rows, the rest], → θ − θp."""


def combined(taus: Sequence[Factors], coefficients: Sequence[float] | Tensor) -> Factors:
    """Σᵢ cᵢ τᵢ = [c₁ L₁ … c_k L_k] · [R₁; …; R_k], exactly: ranks add. `coefficients` is [k], or [k, rows]."""
    c = torch.as_tensor(coefficients, dtype=torch.float64)
    left = [tau.left * (each[:, None] if each.dim() else each) for tau, each in zip(taus, c, strict=True)]
    return Factors(torch.cat(left, dim=1), torch.cat([tau.right for tau in taus]))


def averaged(taus: Sequence[Factors], scale: float) -> Factors:
    """scale · (1/k) Σᵢ τᵢ."""
    return combined(taus, [scale / len(taus)] * len(taus))


def common_left(taus: Sequence[Factors]) -> Tensor:
    """U [m, a]: the left singular vectors of [τ₁ … τ_k], the task matrices side by side, up to the numerical rank."""
    basis, upper = torch.linalg.qr(torch.cat([tau.left for tau in taus], dim=1))
    parts = upper.split([tau.rank for tau in taus], dim=1)
    return basis @ svd(torch.cat([part @ tau.right for part, tau in zip(parts, taus, strict=True)], dim=1)).u
