"""Multi-SLERP: several task vectors averaged on the sphere."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from supermerge.methods.parameters import Weights
from supermerge.methods.registry import method
from supermerge.methods.spheres import gram_survey, task_vector_points, weight_points
from supermerge.methods.survey import GramSurvey
from supermerge.methods.transforms import combination, normalised


@method(
    "multislerp",
    scope="tensor",
    title="Multi-SLERP",
    paper="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    survey=gram_survey,
    cost="Small tensors are read once, large ones twice; memory of a few blocks.",
    use="Averaging several task vectors without losing their length, as happens when they are orthogonal.",
    avoid="Task vectors of very different length or importance without `weights`.",
)
def multislerp(
    base: Tensor,
    taus: Tensor,
    *,
    survey: GramSurvey,
    weights: Weights = None,
    on: Literal["task_vectors", "weights"] = "task_vectors",
) -> Tensor:
    """The mean direction of several task vectors, at their mean length.

    With unit vectors uᵢ = τᵢ / ‖τᵢ‖, θ = θp + Σᵢ wᵢ ‖τᵢ‖ · Σᵢ wᵢ uᵢ / ‖Σᵢ wᵢ uᵢ‖; `weights` are normalised, equal by
    default. `on: weights` averages the experts' weights θᵢ in the same way, without the base. Directions that cancel
    are averaged as they are.

    Departs from its source: the interpolation in the tangent space at the mean, described there, adds a vector that is
    identically zero, and is left out.
    """
    k = len(taus)
    centred = on == "task_vectors"
    points = task_vector_points(k) if centred else weight_points(k, include_base=False)
    inner = points @ survey.gram @ points.T
    w = torch.tensor(normalised(weights or (1.0,) * k, "multislerp"), dtype=torch.float64)
    lengths = inner.diagonal().clamp(min=0).sqrt()
    direction = torch.where(lengths > 0, w / lengths.clamp(min=1e-300), 0.0)
    norm = math.sqrt(max(float(direction @ inner @ direction), 0.0))
    c = w if norm < 1e-8 else float(w @ lengths) / norm * direction
    c0, *coefficients = (c @ points).tolist()
    return combination(base, taus, c0 + 1 if centred else c0, coefficients)
