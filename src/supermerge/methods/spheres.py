"""Points on a sphere, given by their inner products alone: merges along arcs are linear combinations of the points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from supermerge.methods.survey import GramSurvey


def gram_survey(values: Mapping[str, Any], k: int) -> GramSurvey:
    """A fresh survey of the inner products of base and task vectors."""
    return GramSurvey(k)


def weight_points(k: int, *, include_base: bool) -> Tensor:
    """The experts' weights (after the base's, where included) in terms of (θp, τ1 … τk): `[points, k + 1]`."""
    experts = torch.cat([torch.ones(k, 1), torch.eye(k)], dim=1).double()
    base = torch.eye(1, k + 1, dtype=torch.float64)
    return torch.cat([base, experts]) if include_base else experts


def task_vector_points(k: int) -> Tensor:
    """The task vectors in terms of (θp, τ1 … τk): `[k, k + 1]`."""
    return torch.eye(k + 1, dtype=torch.float64)[1:]


def arc(cosine: float, t: float, *, straight: float) -> tuple[float, float]:
    """The coefficients of both ends at the place t of the arc between them.

    sin((1 − t) Ω) / sin Ω and sin(t Ω) / sin Ω, where cos Ω = `cosine`; 1 − t and t, a straight line, where |cosine| is
    larger than `straight`.
    """
    if abs(cosine) > straight:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def cosine(gram: Tensor, i: int, j: int) -> float:
    """The cosine of the angle between two points with inner products `gram`; 0 if one of them is zero."""
    lengths = math.sqrt(float(gram[i, i])) * math.sqrt(float(gram[j, j]))
    return max(-1.0, min(1.0, float(gram[i, j]) / lengths)) if lengths else 0.0
