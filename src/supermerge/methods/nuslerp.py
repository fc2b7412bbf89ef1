"""NuSLERP: interpolation on the sphere between task vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from supermerge.methods.parameters import Weights
from supermerge.methods.registry import method
from supermerge.methods.spheres import arc, cosine, task_vector_points
from supermerge.methods.survey import GramSurvey
from supermerge.methods.transforms import normalised, weighted_sum


def _survey(values: Mapping[str, Any], k: int) -> GramSurvey | None:
    return GramSurvey(k) if values["along"] == "tensor" else None


@method(
    "nuslerp",
    scope="tensor",
    title="NuSLERP",
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    least=2,
    most=2,
    survey=_survey,
    cost="Small tensors are read once, large ones twice; memory of a few blocks. Along rows or columns whole tensors "
    "are held.",
    use="Two experts of one base, interpolated by their changes instead of their weights.",
    avoid="More than two experts; changes that should add up, for which `task_arithmetic` is meant.",
)
def nuslerp(
    base: Tensor,
    taus: Tensor,
    *,
    survey: GramSurvey | None,
    weights: Weights = None,
    along: Literal["tensor", "last", "first"] = "tensor",
) -> Tensor:
    """The base plus the point between two task vectors on the arc that joins them.

    θ = θp + [sin((1 − t) Ω) τ1 + sin(t Ω) τ2] / sin Ω, t = w2 / (w1 + w2), 1/2 by default. Ω is the angle between the
    whole tensors (`along: tensor`), or between corresponding vectors along their last or first dimension. Parallel
    vectors are interpolated on the straight line.
    """
    _, t = normalised(weights or (1.0, 1.0), "nuslerp")
    if survey is not None:
        points = task_vector_points(2)
        inner = points @ survey.gram @ points.T
        return weighted_sum(base, taus, arc(cosine(inner, 0, 1), t, straight=1 - 1e-15))
    dim = 0 if along == "first" else -1
    wide = taus.double()
    a, b = wide if base.ndim else wide[:, None]
    lengths = a.norm(dim=dim, keepdim=True).clamp(min=1e-7) * b.norm(dim=dim, keepdim=True).clamp(min=1e-7)
    angle = ((a * b).sum(dim=dim, keepdim=True) / lengths).clamp(-1, 1).arccos()
    straight = angle.sin() < 1e-8
    sine = torch.where(straight, 1.0, angle.sin())
    first = torch.where(straight, 1 - t, torch.sin((1 - t) * angle) / sine)
    second = torch.where(straight, t, torch.sin(t * angle) / sine)
    return base + (first * a + second * b).view(base.shape).to(base)
