"""Consensus merging: keep the elements that several tasks need."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.parameters import Number, per_expert
from supermerge.methods.registry import method
from supermerge.methods.transforms import summed

Threshold = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@method(
    "consensus",
    scope="element",
    title="Consensus merging (TALL masks)",
    paper="https://arxiv.org/abs/2405.07813",
    cost="Reads every file once; memory of a few blocks.",
    use="Removing elements that serve a single task, or none, from task arithmetic with many experts.",
    avoid="Two experts of different tasks, which agree on little; skills that one expert alone has are removed by "
    "design.",
)
def consensus(
    base: Tensor,
    taus: Tensor,
    *,
    threshold: Threshold | tuple[Threshold, ...] = 0.4,
    tasks: Annotated[int, Field(ge=0)] = 2,
    scale: Number = 0.3,
) -> Tensor:
    """Task arithmetic without the elements that are important to fewer than `tasks` experts.

    τ = Σᵢ τᵢ; element j matters to expert i if |τᵢ| > threshold · |τ − τᵢ|; θ = θp + scale · m ⊙ τ, m where at least
    `tasks` experts are concerned. `tasks: 0` is task arithmetic. The authors choose `threshold` per expert among 0.2 …
    0.6, and `scale`, on validation data. One expert alone has no consensus of two: the base stays.
    """
    total = summed(taus)
    concerned = torch.zeros_like(base)
    for tau, least in zip(taus, per_expert(threshold, len(taus)), strict=True):
        concerned += torch.sign(torch.relu(tau.abs() - (total - tau).abs() * least))
    return base + scale * (total * (concerned - (tasks - 1)).clamp(0, 1))
