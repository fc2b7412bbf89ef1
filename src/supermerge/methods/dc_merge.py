"""DC-Merge: merge in a common basis, where the tasks' directions do not mix."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.inner import agreed, largest
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.spectral import NAMED_PROJECTIONS, is_matrix, mean, polar, truncated


@method(
    "dc_merge",
    scope="tensor",
    title="DC-Merge",
    paper="https://arxiv.org/abs/2603.06242",
    cost="Reads every file once; k + 2 decompositions per matrix; whole tensors in memory.",
    use="Experts of different tasks without data; the best of the static data-free merges in one published comparison "
    "on images.",
    avoid="Small matrices, where a share of 0.001 leaves one entry: raise `density`.",
)
def dc_merge(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    density: PositiveFraction = 0.001,
    scale: Number = 1.0,
    exclude: tuple[str, ...] = NAMED_PROJECTIONS,
) -> Tensor:
    """The base plus low-rank task matrices, merged by signs in a basis that covers them all.

    For every m × n matrix: r = min(m, n) / k (at least 1); τ̃ᵢ = the r largest singular values of τᵢ; U⊥, V⊥ = the
    nearest orthogonal matrices to the stacked singular vectors; Mᵢ = U⊥ᵀ τ̃ᵢ V⊥, of which the `density` share of
    largest entries stays; M = mean over the tasks of the entries that have the sign of their sum; θ = θp + scale · U⊥
    D(M) V⊥ᵀ, D keeping the k diagonal blocks of size r. Other tensors, and those matched by `exclude`, take the mean
    task vector. This is the published form for full fine-tuning; its form for low-rank adapters also smooths singular
    values.

    Departs from the authors' code: at least one entry stays, r is at least 1, and directions beyond the numerical rank,
    which are arbitrary, are left out.
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    parts = truncated(taus, max(1, min(base.shape) // len(taus)))
    u = polar(torch.cat([part.u for part in parts], dim=1))
    vh = polar(torch.cat([part.vh for part in parts]))
    cores = [u.T @ part.matrix() @ vh.T for part in parts]
    blocks = torch.block_diag(*[cores[0].new_ones(len(part.s), len(part.s)) for part in parts])
    return base + scale * (u @ (agreed(largest(cores, density)) * blocks) @ vh).to(base)
