"""Spherical linear interpolation."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.parameters import Fraction
from supermerge.methods.registry import method
from supermerge.methods.spheres import arc, cosine, gram_survey, weight_points
from supermerge.methods.survey import GramSurvey
from supermerge.methods.transforms import combination


@method(
    "slerp",
    scope="tensor",
    title="Spherical linear interpolation (SLERP)",
    paper="https://en.wikipedia.org/wiki/Slerp",
    needs_base=False,
    most=2,
    survey=gram_survey,
    cost="Small tensors are read once, large ones twice; memory of a few blocks.",
    use="Two models of similar kind, as a smoother middle than the mean.",
    avoid="More than two models (see `karcher`, `multislerp`), and experts of different tasks whose changes should "
    "add up.",
)
def slerp(base: Tensor, taus: Tensor, *, survey: GramSurvey, t: Fraction = 0.5) -> Tensor:
    """The point at `t` on the arc between two models, tensor by tensor.

    θ = [sin((1 − t) Ω) a + sin(t Ω) b] / sin Ω, Ω the angle between the flattened tensors a and b. With one expert a is
    the base and b the expert; with two they are the first and the second expert. Nearly parallel tensors
    (|cos Ω| > 0.9995) are interpolated on the straight line. `t: 0` gives a, `t: 1` gives b.
    """
    points = weight_points(len(taus), include_base=len(taus) == 1)
    inner = points @ survey.gram @ points.T
    ends = torch.tensor(arc(cosine(inner, 0, 1), t, straight=0.9995), dtype=torch.float64)
    c0, *c = (ends @ points).tolist()
    return combination(base, taus, c0, c)
