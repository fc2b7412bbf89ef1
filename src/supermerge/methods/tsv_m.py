"""TSV-M: decorrelate the leading singular vectors of the tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import NAMED_PROJECTIONS, Svd, is_matrix, mean, polar, truncated


def decorrelated(taus: Tensor) -> list[Svd]:
    """Every task's columns of U⊥, its part of S, and its rows of V⊥ᵀ: its leading singular vectors, orthogonalised."""
    parts = truncated(taus, max(1, min(taus.shape[1:]) // len(taus)))
    ranks = [len(part.s) for part in parts]
    u = polar(torch.cat([part.u for part in parts], dim=1)).split(ranks, dim=1)
    vh = polar(torch.cat([part.vh for part in parts])).split(ranks)
    return [Svd(u[i], part.s, vh[i]) for i, part in enumerate(parts)]


def decorrelated_sum(taus: Tensor) -> Tensor:
    """[m, n]: U⊥ · diag(S) · V⊥ᵀ of the tasks' leading singular vectors, stacked and orthogonalised."""
    u, s, vh = zip(*decorrelated(taus), strict=True)
    return Svd(torch.cat(u, dim=1), torch.cat(s), torch.cat(vh)).matrix().to(taus)


def _process(base: Tensor, taus: Tensor, *, context: Context, exclude: tuple[str, ...]) -> list[Tensor]:
    """Each task's part of U⊥ diag(S) V⊥ᵀ; a k-th of what is no matrix."""
    if not is_matrix(context, exclude):
        return [tau / len(taus) for tau in taus]
    return [part.matrix().to(taus) for part in decorrelated(taus)]


@method(
    "tsv_m",
    scope="tensor",
    title="Task singular vectors (TSV-M)",
    paper="https://arxiv.org/abs/2412.00081",
    process=_process,
    cost="Reads every file once; k + 2 decompositions per matrix; whole tensors in memory.",
    use="Experts of different tasks without data: among the best static methods in published image benchmarks.",
    avoid="More experts than min(m, n) directions; vocabularies of large models, whose embeddings are decomposed too "
    "unless excluded.",
)
def tsv_m(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    scale: Number = 1.0,
    exclude: tuple[str, ...] = NAMED_PROJECTIONS,
) -> Tensor:
    """The base plus the sum of low-rank task matrices whose singular vectors are made orthogonal to each other's.

    For every m × n matrix: r = min(m, n) / k (at least 1); Uᵢ Sᵢ Vᵢᵀ = the r largest singular values of τᵢ;
    U⊥, V⊥ = the nearest orthogonal matrices to [U₁ … U_k], [V₁ … V_k]; θ = θp + scale · U⊥ diag(S₁ … S_k) V⊥ᵀ.
    Other tensors, and those matched by `exclude`, take the mean task vector.

    Departs from the authors' code: r is at least 1 (there, more experts than directions leave nothing); where the
    stacked vectors are linearly dependent, as with equal experts, only the directions that exist are orthogonalised
    (there arbitrary ones fill up).
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    return base + scale * decorrelated_sum(taus)
