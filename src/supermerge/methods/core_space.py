"""Core space: merge low-rank task matrices as the small matrices that they are in a common basis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.factored import FactoredMerge, Factors, averaged
from supermerge.methods.inner import MERGES, agreed, largest
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import Values, method
from supermerge.methods.spectral import NOT_INSIDE_LAYERS, Svd, is_matrix, mean, svd


def common_bases(parts: Sequence[Svd]) -> tuple[Tensor, Tensor]:
    """U [m, a] and V [n, b]: orthonormal bases of all columns and of all rows of the task matrices."""
    roots = [part.s.sqrt() for part in parts]
    left = torch.cat([part.u * root for part, root in zip(parts, roots, strict=True)], dim=1)
    right = torch.cat([part.vh.T * root for part, root in zip(parts, roots, strict=True)], dim=1)
    return svd(left).u, svd(right).u


def merged(cores: Tensor, merge: str, density: float) -> Tensor:
    """C [a, b] of C₁ … C_k [k, a, b]."""
    return agreed(largest(list(cores), density)) if merge == "ties" else MERGES[merge](cores)


def on_factors(values: Values, k: int) -> FactoredMerge:
    """The same without a task matrix in full: decompositions by thin QR, Cᵢ = (Uᵀ Lᵢ)(Rᵢ V)."""

    def merge(taus: Sequence[Factors], context: Context) -> Factors:
        if not is_matrix(context, values["exclude"]):
            return averaged(taus, values["scale"])
        u, v = common_bases([tau.svd() for tau in taus])
        if not u.shape[1]:
            return Factors.zero(*context.shape)
        cores = torch.stack([(u.T @ tau.left) @ (tau.right @ v) for tau in taus])
        core = merged(cores, values["merge"], values["density"])
        return Factors(values["scale"] * (u @ core), v.T)

    return merge


@method(
    "core_space",
    scope="tensor",
    factored=on_factors,
    title="Core space merging",
    paper="https://arxiv.org/abs/2509.17786",
    cost="Reads every file once; k + 2 decompositions per matrix and those of a small core; whole tensors in memory. "
    "Of LoRA adapters only the factors.",
    use="Experts that were LoRA adapters, merged by a spectral method in the few directions that they use.",
    avoid="Task vectors of full rank: it is then the inner method at more cost.",
)
def core_space(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    merge: Literal["tsv_m", "iso_c", "ties"] = "tsv_m",
    density: PositiveFraction = 0.2,
    scale: Number = 1.0,
    exclude: tuple[str, ...] = NOT_INSIDE_LAYERS,
) -> Tensor:
    """Another merge, done on the small matrices that low-rank task matrices are in bases common to all experts.

    For every m × n matrix: τᵢ = Bᵢ Aᵢ with Bᵢ = Uᵢ Sᵢ^½, Aᵢ = Sᵢ^½ Vᵢᵀ up to the numerical rank; U, V = orthonormal
    bases of [B₁ … B_k] and [A₁ᵀ … A_kᵀ]; Cᵢ = Uᵀ τᵢ V, from which τᵢ = U Cᵢ Vᵀ exactly; θ = θp + scale · U C Vᵀ, C the
    merge of C₁ … C_k: `tsv_m`, `iso_c` (σ̄ then is the mean over the core's directions), or `ties` on the `density`
    share of largest elements. Meant for experts that were LoRA adapters; for task matrices of full rank it is the same
    merge in another basis. Other tensors, and those matched by `exclude`, take the mean task vector. The authors'
    example for `tsv_m` has scale 0.2.

    Departs from the authors' code: it takes B and A as they were trained, here they come from a decomposition, which
    for `ties` makes another basis; as in `knots`, a sum of exactly zero adds nothing.
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    u, v = common_bases([svd(tau) for tau in taus])
    if not u.shape[1]:
        return base.clone()
    cores = torch.stack([u.T @ tau @ v for tau in taus.double()])
    return base + scale * (u @ merged(cores, merge, density) @ v.T).to(base)
