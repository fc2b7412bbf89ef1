"""Model Stock: how far to trust the average, read from the angle between the experts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from supermerge.methods.registry import method
from supermerge.methods.survey import GramSurvey
from supermerge.methods.transforms import summed, weighted_sum


def _survey(values: Mapping[str, Any], k: int) -> GramSurvey | None:
    return GramSurvey(k) if values["per"] == "tensor" else None


@method(
    "model_stock",
    scope="tensor",
    title="Model Stock",
    paper="https://arxiv.org/abs/2403.19522",
    least=2,
    survey=_survey,
    cost="Small tensors are read once, large ones twice; memory of a few blocks.",
    use="Two or more runs of one task from one base: approximates the average of many runs.",
    avoid="Experts of different tasks: their task vectors are nearly orthogonal, so the result is nearly the base.",
)
def model_stock(
    base: Tensor, taus: Tensor, *, survey: GramSurvey | None, per: Literal["tensor", "row"] = "tensor"
) -> Tensor:
    """A step from the base towards the average of experts that were fine-tuned for the same task.

    θ = t θ̄ + (1 − t) θp, θ̄ = (1/k) Σᵢ θᵢ, t = k c / (1 + (k − 1) c), c the cosine between two task vectors, averaged
    over the pairs; per tensor, or per vector along the last dimension (`per: row`). Needs two experts or more.

    Departs from the paper: t stays in [0, 1]; a task vector of zeros has cosine 0 with the others.
    """
    k = len(taus)
    if survey is not None:
        t = float(_trust(survey.gram[1:, 1:]))
        return weighted_sum(base, taus, [t / k] * k)
    rows = taus.reshape(k, -1, base.shape[-1] if base.ndim else 1).double()
    t = _trust(torch.einsum("iry,jry->ijr", rows, rows)).to(base)
    return base + (summed(taus).view(len(t), -1) * (t[:, None] / k)).view(base.shape)


def _trust(inner: Tensor) -> Tensor:
    """t from inner products of task vectors, `[k, k]` or `[k, k, rows]`."""
    k = len(inner)
    lengths = torch.stack([inner[i, i] for i in range(k)]).clamp(min=0).sqrt()
    pairs = list(combinations(range(k), 2))
    cosines = [inner[i, j] / (lengths[i] * lengths[j]).clamp(min=1e-300) for i, j in pairs]
    c = torch.stack(cosines).clamp(-1, 1).mean(0).clamp(min=0)
    return k * c / (1 + (k - 1) * c)
