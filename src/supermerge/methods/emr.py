"""EMR-Merging's unified task vector."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.parameters import Number
from supermerge.methods.registry import method
from supermerge.methods.transforms import elect


@method(
    "emr",
    scope="element",
    title="EMR-Merging, unified task vector",
    paper="https://arxiv.org/abs/2405.17461",
    cost="Reads every file once; memory of a few blocks.",
    use="A strong common vector in the paper's scheme; as a static merge, a bold form of `ties` without trimming.",
    avoid="Where size matters: it keeps the largest agreeing change of every element, so merged changes are long; try "
    "a `scale` below 1.",
)
def emr(base: Tensor, taus: Tensor, *, scale: Number = 1.0) -> Tensor:
    """The base plus, per element, the largest magnitude among the task vectors that have the elected sign.

    γ = sign(Σᵢ τᵢ), − for a sum of zero as in the authors' code; τ_uni = γ ⊙ maxᵢ |τᵢ| over the τᵢ with that sign;
    θ = θp + scale · τ_uni. The paper then serves every task with its own mask and scale of this vector; that is not
    part of this static merge.
    """
    sign = elect(taus, tie=-1)
    largest = torch.zeros_like(base)
    for tau in taus:
        largest = torch.maximum(largest, torch.relu(tau * sign))
    return base + scale * largest * sign
