"""SVC: calibrate the singular values that several tasks share."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.inner import MERGES, plain
from supermerge.methods.parameters import Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import is_matrix, svd


def calibrated(merged: Tensor, taus: Tensor, alpha: float) -> Tensor:
    """[m, n]: `merged` with every singular value divided by the mean of the tasks' over-counting there."""
    u, s, vh = svd(merged)
    responses = torch.einsum("mr,kmn->krn", u, taus.double())
    ours = s[:, None] * vh
    energy = (responses * responses).sum(-1)
    # A task that is absent from a direction, up to rounding, does not over-count there.
    present = energy > 1e-12 * (taus.double() ** 2).sum((1, 2))[:, None]
    counted = torch.where(present, (responses * ours).sum(-1) / energy.clamp(min=1e-300), alpha)
    return ((u * (s * len(taus) / counted.clamp(min=alpha).sum(0))) @ vh).to(taus)


@method(
    "svc",
    scope="tensor",
    title="Singular value calibration (SVC)",
    paper="https://arxiv.org/abs/2602.05536",
    cost="Reads every file once; one decomposition per matrix beside those of the inner merge; whole tensors in "
    "memory.",
    use="Repairing a merge in which tasks that share a direction over-count it.",
    avoid="Nearly orthogonal task vectors with a small `alpha`: directions of one task alone are amplified.",
)
def svc(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    merge: Literal["sum", "mean", "tsv_m", "iso_c"] = "sum",
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1,
    scale: Number = 0.3,
    exclude: tuple[str, ...] = (),
) -> Tensor:
    """Another merge, with the directions that several tasks push in the same way weakened.

    Δ = scale · the chosen merge of τ₁ … τ_k (`sum` is task arithmetic). For every matrix Δ = U diag(s) Vᵀ and every
    direction r: aᵢ = ⟨u_rᵀ Δ, u_rᵀ τᵢ⟩ / ‖u_rᵀ τᵢ‖²; s_r is multiplied by k / Σᵢ max(alpha, aᵢ). θ = θp + Δ. k equal
    experts that are summed give the one expert. The authors take alpha 0.1 for sums, means and Iso-C, 1 for TSV-M.
    Other tensors, and those matched by `exclude`, keep the merge as it is (for `tsv_m` and `iso_c` the mean).

    Follows a public re-implementation, not the authors' code. A task that has nothing in a direction, 0/0 in the
    formula, counts as alpha there.
    """
    if not is_matrix(context, exclude):
        return base + scale * plain(taus, merge)
    return base + calibrated(scale * MERGES[merge](taus), taus, alpha)
