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
Shares = Threshold | tuple[Threshold, ...]


def shared(taus: Tensor, total: Tensor, threshold: Shares, tasks: int) -> Tensor:
    """m: 1 where an element matters to at least `tasks` experts, else 0."""
    concerned = torch.zeros_like(total)
    for tau, least in zip(taus, per_expert(threshold, len(taus)), strict=True):
        concerned += torch.sign(torch.relu(tau.abs() - (total - tau).abs() * least))
    return (concerned - (tasks - 1)).clamp(0, 1)


def _process(base: Tensor, taus: Tensor, *, threshold: Shares, tasks: int) -> list[Tensor]:
    """m ⊙ τᵢ."""
    mask = shared(taus, summed(taus), threshold, tasks)
    return [tau * mask for tau in taus]


@method(
    "consensus",
    scope="element",
    title="Consensus merging (TALL masks)",
    paper="https://arxiv.org/abs/2405.07813",
    process=_process,
    cost="Reads every file once; memory of a few blocks.",
    use="Removing elements that serve a single task, or none, from task arithmetic with many experts.",
    avoid="Two experts of different tasks, which agree on little; skills that one expert alone has are removed by "
    "design.",
)
def consensus(
    base: Tensor,
    taus: Tensor,
    *,
    threshold: Shares = 0.4,
    tasks: Annotated[int, Field(ge=0)] = 2,
    scale: Number = 0.3,
) -> Tensor:
    """Task arithmetic without the elements that are important to fewer than `tasks` experts.

    τ = Σᵢ τᵢ; element j matters to expert i if |τᵢ| > threshold · |τ − τᵢ|; θ = θp + scale · m ⊙ τ, m where at least
    `tasks` experts are concerned. `tasks: 0` is task arithmetic. The authors choose `threshold` per expert among 0.2 …
    0.6, and `scale`, on validation data. One expert alone has no consensus of two: the base stays.
    """
    total = summed(taus)
    return base + scale * (total * shared(taus, total, threshold, tasks))
