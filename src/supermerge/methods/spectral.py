"""Singular values of task vectors, with their numerical rank: directions that are only rounding are left out.

Task vectors that are duplicated, or of low rank, span fewer directions than a matrix has. What an SVD returns for the
rest is arbitrary and differs between libraries, so no result here depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.transforms import summed

RELATIVE_TOLERANCE = 1e-5
"""Singular values below this share of the largest are rounding: fp32 task vectors carry about 1e-7 per element."""

NAMED_PROJECTIONS = ("*text_projection*",)
"""What the authors of TSV-M, Iso-C and DC-Merge leave out of the matrices."""

NOT_INSIDE_LAYERS = ("*embed*", "*text_projection*", "*visual.proj", "*visual_projection*", "*lm_head*")
"""Names of matrices that are not attention or MLP weights."""


class Svd(NamedTuple):
    """u [m, r], s [r] in descending order, vh [r, n], in fp64; r is the numerical rank, or less where asked for."""

    u: Tensor
    s: Tensor
    vh: Tensor

    def matrix(self) -> Tensor:
        """u · diag(s) · vh, [m, n]."""
        return (self.u * self.s) @ self.vh


def is_matrix(context: Context, exclude: Sequence[str]) -> bool:
    """Whether a tensor has two dimensions and a name that none of the globs in `exclude` matches."""
    return len(context.shape) == 2 and not any(fnmatchcase(context.name, glob) for glob in exclude)


def svd(matrix: Tensor, rank: int | None = None, *, size: float = 0.0) -> Svd:
    """The singular value decomposition of `matrix [m, n]` up to its numerical rank, at most `rank`.

    What counts as rounding is measured against the largest singular value, or `size` if that is larger: the norm of
    what the matrix is a remainder of. Computed from the eigenvectors of the smaller Gram matrix in fp64, which is
    several times faster than a direct SVD and, for fp32 data, as accurate above the tolerance.
    """
    wide = matrix.double()
    if wide.shape[0] > wide.shape[1]:
        turned = svd(wide.T, rank, size=size)
        return Svd(turned.vh.T, turned.s, turned.u.T)
    squares, u = torch.linalg.eigh(wide @ wide.T)
    s = squares.flip(0).clamp(min=0).sqrt()
    kept = int((s > RELATIVE_TOLERANCE * s[:1].clamp(min=size)).sum())
    kept = kept if rank is None else min(kept, rank)
    u = u.flip(1)[:, :kept]
    return Svd(u, s[:kept], (u / s[:kept]).T @ wide)


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix to `matrix [m, n]` with singular values 1 on its numerical rank, and 0 beyond."""
    u, _, vh = svd(matrix)
    return u @ vh


def truncated(taus: Tensor, rank: int) -> list[Svd]:
    """The `rank` largest singular values of every task vector, or as many as it has."""
    return [svd(tau, rank) for tau in taus]


def mean(taus: Tensor) -> Tensor:
    """(1/k) Σᵢ τᵢ: what spectral methods do with tensors that are no matrices."""
    return summed(taus) / len(taus)
