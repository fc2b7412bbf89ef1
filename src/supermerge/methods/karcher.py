"""The Karcher mean: the centre of several models on the sphere."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.parameters import Number, Weights
from supermerge.methods.registry import method
from supermerge.methods.spheres import gram_survey, weight_points
from supermerge.methods.survey import GramSurvey
from supermerge.methods.transforms import combination, normalised


@method(
    "karcher",
    scope="tensor",
    title="Karcher mean",
    paper="https://en.wikipedia.org/wiki/Karcher_mean",
    needs_base=False,
    survey=gram_survey,
    cost="Small tensors are read once, large ones twice; memory of a few blocks.",
    use="A mean of several models that keeps their length where plain averaging shortens it.",
    avoid="Experts close to one base: there it differs little from `linear`, at more cost.",
)
def karcher(
    base: Tensor,
    taus: Tensor,
    *,
    survey: GramSurvey,
    weights: Weights = None,
    base_weight: Number | None = None,
    max_iter: Annotated[int, Field(ge=0)] = 10,
    tol: Annotated[float, Field(gt=0)] = 1e-5,
) -> Tensor:
    """The point on the unit sphere with the least squared distances along arcs to all experts, at their mean length.

    With unit vectors uᵢ = θᵢ / ‖θᵢ‖, μ ← exp_μ(Σᵢ wᵢ log_μ uᵢ) from the normalised mean on, until the step is shorter
    than `tol` or after `max_iter` steps; θ = Σᵢ wᵢ ‖θᵢ‖ · μ. `weights` are normalised, 1 each by default. With a
    `base_weight` the base is one more point. Directions that cancel are averaged as they are.
    """
    points = weight_points(len(taus), include_base=base_weight is not None)
    inner = points @ survey.gram @ points.T
    given = weights or (1.0,) * len(taus)
    shares = normalised(given if base_weight is None else (base_weight, *given), "karcher")
    w = torch.tensor(shares, dtype=torch.float64)
    lengths = inner.diagonal().clamp(min=0).sqrt()
    present = lengths > tol
    units = torch.diag(present / lengths.clamp(min=tol))
    mean = _centre(inner, units, w * present, max_iter, tol)
    c0, *c = ((float(w @ lengths) * mean if mean is not None else w) @ points).tolist()
    return combination(base, taus, c0, c)


def _centre(inner: Tensor, units: Tensor, w: Tensor, max_iter: int, tol: float) -> Tensor | None:
    """[points]: the mean as a combination of points with inner products `inner`; `units[i]` is point i normalised.

    None where the points cancel, so that no direction is in the middle.
    """

    def length(v: Tensor) -> float:
        return math.sqrt(max(float(v @ inner @ v), 0.0))

    total = float(w.sum())
    mean = w @ units
    if length(mean) <= tol * abs(total):
        return None
    mean, w = mean / length(mean) * math.copysign(1, total), w / total
    for _ in range(max_iter):
        cosines = (units @ inner @ mean).clamp(-1, 1)
        angles = cosines.arccos()
        # The logarithm of the point itself is 0; that of the opposite point has no direction.
        stretch = torch.where(angles.sin() < tol, 0.0, angles / angles.sin().clamp(min=tol))
        step = (w * stretch) @ (units - cosines[:, None] * mean)
        if length(step) < tol:
            break
        mean = math.cos(length(step)) * mean + math.sin(length(step)) / length(step) * step
        mean = mean / length(mean)
    return mean
