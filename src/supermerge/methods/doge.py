"""DOGE: a common change of all task vectors that leaves them with less conflict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.adam import adam
from supermerge.methods.context import Context
from supermerge.methods.parameters import PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.spectral import NOT_INSIDE_LAYERS, is_matrix, svd, truncated
from supermerge.methods.survey import MagnitudeSurvey
from supermerge.methods.transforms import combine

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MatrixSurvey(MagnitudeSurvey):
    """Per expert, the magnitude that a share of the elements of all matrices reach."""

    def __init__(self, k: int, density: float, exclude: tuple[str, ...]) -> None:
        super().__init__([partial(_kept, density) for _ in range(k)])
        self._exclude = exclude

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Count the magnitudes of one piece of a matrix."""
        if is_matrix(context, self._exclude):
            super().observe(context, base, taus)


def _kept(density: float, total: int) -> int:
    return min(total, int(density * total) + 1)


def _survey(values: Mapping[str, Any], k: int) -> MatrixSurvey:
    return MatrixSurvey(k, values["density"], values["exclude"])


def shared_basis(taus: Tensor, share: int) -> Tensor:
    """[m, r / share]: the leading left singular vectors of the experts' leading left singular vectors."""
    size = min(taus.shape[1:])
    stacked = torch.cat([part.u for part in truncated(taus, max(1, size // len(taus)))], dim=1)
    return svd(stacked, size // share).u


def adjusted(taus: Tensor, scales: Tensor, basis: Tensor, steps: int, lr: float) -> Tensor:
    """[m, n]: Δ after `steps` of Adam on the conflict of τᵢ + Δ, its gradient outside the span of `basis`."""
    total, weight = combine(taus, scales.tolist()), float(scales.sum())

    def gradient(delta: Tensor) -> Tensor:
        merged = total + weight * delta
        slope = torch.zeros_like(delta)
        for tau in taus:
            slope += (tau * (tau - merged)).sum(1, keepdim=True) * tau
        slope *= -2 * weight
        return slope - basis @ (basis.T @ slope)

    return adam(torch.zeros_like(total), gradient, steps, lr)


@method(
    "doge",
    scope="model",
    title="DOGE task arithmetic",
    paper="https://arxiv.org/abs/2501.01230",
    survey=_survey,
    whole=True,
    cost="Three readings; 400 steps over all task matrices: slow; whole tensors in memory.",
    use="Several experts without data, when every task should weigh the same in every tensor.",
    avoid="Experts that changed some tensors little on purpose: every tensor's change is brought to one length; norms "
    "and embeddings keep the base.",
)
def doge(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    survey: MatrixSurvey,
    scale: Positive = 0.07,
    density: PositiveFraction = 0.3,
    share: Annotated[int, Field(ge=1)] = 6,
    steps: Annotated[int, Field(ge=0)] = 400,
    lr: Positive = 1e-4,
    exclude: tuple[str, ...] = NOT_INSIDE_LAYERS,
) -> Tensor:
    """Task arithmetic, normalised per tensor, on trimmed task vectors that share a learned correction.

    For every m × n matrix: λᵢ = scale / ‖τᵢ‖; Δ minimises Σⱼ ‖rowsum(τⱼ ⊙ (τⱼ − Σᵢ λᵢ (τᵢ + Δ)))‖² by `steps` of Adam
    from 0 at `lr`, gradients projected off the subspace that the experts share (the leading min(m, n) / `share` left
    singular vectors of their leading ones); θ = θp + Σᵢ λᵢ maskᵢ ⊙ (τᵢ + Δ), maskᵢ the `density` share of largest
    magnitudes of τᵢ over all matrices. Other tensors, and those matched by `exclude`, keep the base. Follows a
    published re-implementation, as the authors' code was not available; Adam runs in fp64.
    """
    if not is_matrix(context, exclude):
        return base.clone()
    present = [i for i, tau in enumerate(taus) if torch.count_nonzero(tau)]
    if not present:
        return base.clone()
    wide = taus[present].double()
    scales = scale / wide.flatten(1).norm(dim=1)
    delta = adjusted(wide, scales, shared_basis(wide, share), steps, lr)
    merged = torch.zeros_like(delta)
    for i, tau, c in zip(present, wide, scales.tolist(), strict=True):
        merged += (tau + delta) * (taus[i].abs() >= survey.thresholds[i]) * c
    return base + merged.to(base)
