"""KnOTS: bring low-rank task matrices into one common space before they are merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.factored import FactoredMerge, Factors, averaged, common_left
from supermerge.methods.inner import agreed, largest
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import Values, method
from supermerge.methods.spectral import NOT_INSIDE_LAYERS, is_matrix, mean, svd


def merged(aligned: Sequence[Tensor], merge: str, density: float, context: Context) -> Tensor:
    """A [a, n] of A₁ … A_k [a, n]."""
    if merge == "ties":
        kept = largest(aligned, density)
    else:
        draws = [context.bernoulli("knots", i, density, part) for i, part in enumerate(aligned)]
        kept = [part * draw / density for part, draw in zip(aligned, draws, strict=True)]
    return agreed(kept)


def on_factors(values: Values, k: int) -> FactoredMerge:
    """The same without a task matrix in full: U from thin QR, Aᵢ = (Uᵀ Lᵢ) Rᵢ."""

    def merge(taus: Sequence[Factors], context: Context) -> Factors:
        if not is_matrix(context, values["exclude"]):
            return averaged(taus, values["scale"])
        u = common_left(taus)
        aligned = [(u.T @ tau.left) @ tau.right for tau in taus]
        return Factors(values["scale"] * u, merged(aligned, values["merge"], values["density"], context))

    return merge


@method(
    "knots",
    scope="tensor",
    factored=on_factors,
    title="KnOTS",
    paper="https://arxiv.org/abs/2410.19735",
    cost="Reads every file once; one decomposition per matrix; whole tensors in memory. Of LoRA adapters only the "
    "factors.",
    use="Experts that were LoRA adapters, whose elements do not line up as those of full fine-tuning do.",
    avoid="Full fine-tuning of large matrices: the common basis is then as large as the matrix, and the decomposition "
    "slow.",
)
def knots(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    merge: Literal["ties", "dare_ties"] = "ties",
    density: PositiveFraction = 0.2,
    scale: Number = 0.6,
    exclude: tuple[str, ...] = NOT_INSIDE_LAYERS,
) -> Tensor:
    """TIES on task matrices that are written in the common basis of all of them.

    For every m × n matrix: [τ₁ … τ_k] = U S [V₁ … V_k]ᵀ side by side, up to the numerical rank; Aᵢ = S Vᵢᵀ = Uᵀ τᵢ;
    Ãᵢ = the `density` share of largest elements of Aᵢ, or a random share divided by `density` (`merge: dare_ties`);
    A = mean over the experts of the elements that have the sign of their sum; θ = θp + scale · U A. Meant for experts
    that were LoRA adapters; other tensors, and those matched by `exclude`, take the mean task vector. Merging by a sum
    instead would be task arithmetic.

    Where two singular values are equal, the basis, and with it the merge, is open.

    Departs from the authors' code: elements are trimmed per matrix, not over the model; singular values count as zero
    relative to the largest, not below 1e-5; where the sum is exactly zero nothing is added, because the signs of
    singular vectors are arbitrary.
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    u = svd(torch.cat(list(taus), dim=1)).u
    aligned = [u.T @ tau for tau in taus.double()]
    return base + scale * (u @ merged(aligned, merge, density, context)).to(base)
