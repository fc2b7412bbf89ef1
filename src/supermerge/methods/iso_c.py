"""Isotropic merging in the common subspace (Iso-C), and in task-specific ones too (Iso-CTS)."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Fraction, Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import NAMED_PROJECTIONS, is_matrix, mean, polar, svd
from supermerge.methods.transforms import summed

_PAPER = "https://arxiv.org/abs/2502.04959"


def flattened_sum(taus: Tensor) -> Tensor:
    """[m, n]: Σᵢ τᵢ with all its singular values replaced by their mean."""
    total = svd(summed(taus.double()))
    return (float(total.s.sum()) / min(taus.shape[1:]) * (total.u @ total.vh)).to(taus)


@method(
    "iso_c",
    scope="tensor",
    title="Isotropic merging (Iso-C)",
    paper=_PAPER,
    cost="Reads every file once; one decomposition per matrix; whole tensors in memory.",
    use="Many experts without data; quicker than `tsv_m` and about as good in published image benchmarks.",
    avoid="A single expert, whose spectrum it flattens; experts of low rank, whose sum has few directions to share.",
)
def iso_c(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    scale: Number = 1.0,
    exclude: tuple[str, ...] = NAMED_PROJECTIONS,
) -> Tensor:
    """The base plus the sum of task matrices, with a flat spectrum.

    For every m × n matrix: U Σ Vᵀ = Σᵢ τᵢ; θ = θp + scale · σ̄ U Vᵀ, σ̄ the mean of all min(m, n) singular values. Other
    tensors, and those matched by `exclude`, take the mean task vector. The authors' scales lie between 0.9 and 1.5. One
    expert alone is not returned: its spectrum is flattened too.

    Departs from the authors' code: directions beyond the numerical rank, which are arbitrary, get nothing.
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    return base + scale * flattened_sum(taus)


def common_rank(size: int, k: int, share: float) -> tuple[int, int]:
    """(common directions, directions per task) of `size` = min(m, n): the latter divide the rest evenly."""
    each = round((size - int(size * share)) / k)
    return size - each * k, each


@method(
    "iso_cts",
    scope="tensor",
    title="Isotropic merging, task-specific (Iso-CTS)",
    paper=_PAPER,
    cost="Reads every file once; k + 3 decompositions per matrix; whole tensors in memory.",
    use="As `iso_c` for many tasks (fourteen and more), where common directions leave no room for each task's own.",
    avoid="A single expert; few, similar tasks, for which `iso_c` is as good and quicker.",
)
def iso_cts(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    scale: Number = 1.0,
    common: Fraction = 0.8,
    exclude: tuple[str, ...] = NAMED_PROJECTIONS,
) -> Tensor:
    """Iso-C, with the least important common directions replaced by each task's own.

    For every m × n matrix: U_c S_c V_cᵀ = the leading singular vectors of Σᵢ τᵢ, about `common` of all; the rest is
    shared evenly: Uᵢ Sᵢ Vᵢᵀ = the leading ones of τᵢ − U_c U_cᵀ τᵢ; θ = θp + scale · σ̄ U⊥ V⊥ᵀ, U⊥ and V⊥ the nearest
    orthogonal matrices to [U₁ … U_k U_c] and [V₁ … V_k V_c], σ̄ the mean of the singular values taken. Other tensors,
    and those matched by `exclude`, take the mean task vector. `common: 1` is Iso-C. One expert alone is not returned.

    Departs from the authors' code: directions beyond the numerical rank, which are arbitrary, get nothing.
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    size = min(taus.shape[1:])
    shared, each = common_rank(size, len(taus), common)
    if each == 0:
        return base + scale * flattened_sum(taus)
    top = svd(summed(taus.double()), shared)
    own = [svd(tau - top.u @ (top.u.T @ tau), each, size=float(tau.norm())) for tau in taus.double()]
    parts = [*own, top]
    u = polar(torch.cat([part.u for part in parts], dim=1))
    vh = polar(torch.cat([part.vh for part in parts]))
    strength = sum(float(part.s.sum()) for part in parts) / size
    return base + scale * (strength * (u @ vh)).to(taus)
