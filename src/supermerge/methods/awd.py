"""AWD: subtract what all task vectors share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.parameters import Number
from supermerge.methods.registry import method
from supermerge.methods.survey import GramSurvey
from supermerge.methods.transforms import weighted_sum

_TINY = 1e-300


class SharedSurvey(GramSurvey):
    """The redundant vector δ = Σᵢ aᵢ τᵢ, found by gradient descent on its k coefficients."""

    def __init__(self, k: int, alpha: float, rate: float, steps: int) -> None:
        super().__init__(k)
        self.shares = torch.zeros(k, dtype=torch.float64)
        self._descent = alpha, rate, steps

    def finish_pass(self) -> bool:
        """One pass, then the descent. From 0 it never leaves the span of the task vectors: their products suffice."""
        alpha, rate, steps = self._descent
        inner = self.gram[1:, 1:]
        if len(inner) > 1:
            for _ in range(steps):
                self.shares = self.shares - rate * _gradient(inner, self.shares, alpha)
        return False


def _gradient(inner: Tensor, shares: Tensor, alpha: float) -> Tensor:
    """[k]: the gradient of mean |cos(τᵢ − δ, τⱼ − δ)| + alpha ‖δ‖ at δ = Σ shares τ, in terms of the task vectors."""
    k = len(shares)
    rest = torch.eye(k, dtype=torch.float64) - shares
    products = rest @ inner @ rest.T
    lengths = products.diagonal().clamp(min=_TINY).sqrt()
    cosines = products / torch.outer(lengths, lengths)
    signs = torch.sign(cosines).fill_diagonal_(0)
    across = signs / torch.outer(lengths, lengths)
    along = (signs * cosines).sum(1) / lengths**2
    conflict = -2 * (across.sum(1) - along) @ rest / (k * (k - 1))
    length = max(float(shares @ inner @ shares), 0.0) ** 0.5
    return conflict + (alpha / length * shares if length else 0.0)


def _survey(values: Mapping[str, Any], k: int) -> SharedSurvey:
    return SharedSurvey(k, values["alpha"], values["rate"], values["steps"])


def _process(base: Tensor, taus: Tensor, *, survey: SharedSurvey) -> list[Tensor]:
    """τᵢ − δ."""
    redundant = weighted_sum(torch.zeros_like(base), taus, survey.shares.tolist())
    return [tau - redundant for tau in taus]


@method(
    "awd",
    scope="model",
    title="Adaptive weight disentanglement (AWD)",
    paper="https://arxiv.org/abs/2411.18729",
    survey=_survey,
    process=_process,
    cost="Reads every file twice; the optimisation itself is k × k and takes no time; memory of a few blocks.",
    use="Before task arithmetic, when all experts share a common drift (equal data or template).",
    avoid="Nearly orthogonal or very long task vectors, where it changes nothing.",
)
def awd(
    base: Tensor,
    taus: Tensor,
    *,
    survey: SharedSurvey,
    scale: Number = 0.3,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1,
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01,
    steps: Annotated[int, Field(ge=0)] = 300,
) -> Tensor:
    """Task arithmetic on task vectors from which a common, redundant vector is taken.

    δ minimises mean_{i≠j} |cos(τᵢ − δ, τⱼ − δ)| + alpha ‖δ‖ over the whole model, by `steps` of gradient descent from 0
    at `rate`; θ = θp + scale · Σᵢ (τᵢ − δ). Where the gradient of the first term at 0 is shorter than alpha, as with
    long task vectors, δ stays 0 and this is task arithmetic. One expert keeps its task vector.

    The objective and its constants are from the paper; its optimiser and start could not be verified.
    """
    k = len(taus)
    return weighted_sum(base, taus, [scale * (1 - k * float(share)) for share in survey.shares])
