"""CABS: sparse task vectors that do not overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from supermerge.errors import RecipeError
from supermerge.methods.context import PART
from supermerge.methods.parameters import Number, Weights
from supermerge.methods.ranking import ranks
from supermerge.methods.registry import Scope, method
from supermerge.methods.task_arithmetic import scaled
from supermerge.methods.transforms import accumulate

Count = Annotated[int, Field(ge=1)]


def _scope(values: Mapping[str, Any]) -> Scope:
    return "element" if PART % values["of"] == 0 else "tensor"


def keep_of_blocks(tau: Tensor, keep: int, of: int) -> Tensor:
    """1 at the `keep` largest magnitudes of every `of` consecutive elements of a flat tensor, 0 elsewhere.

    The last, shorter block keeps the same share, rounded up.
    """
    full = tau.numel() // of * of
    mask = torch.zeros_like(tau)
    if full:
        mask[:full] = (ranks(tau[:full].view(-1, of)) >= of - keep).to(tau).view(-1)
    rest = tau.numel() - full
    if rest:
        mask[full:] = (ranks(tau[full:].view(1, -1)) >= rest - -(-keep * rest // of)).to(tau).view(-1)
    return mask


@method(
    "cabs",
    scope=_scope,
    title="CABS",
    paper="https://arxiv.org/abs/2503.01874",
    cost="Reads every file once; sorts blocks; memory of a few blocks.",
    use="Two or three experts of which the first is the most important: nothing overlaps.",
    avoid="Many experts: with experts × keep above `of` the last ones get nothing. The order decides.",
)
def cabs(
    base: Tensor, taus: Tensor, *, weights: Weights = None, keep: Count = 64, of: Count = 256, scale: Number = 1.0
) -> Tensor:
    """Task arithmetic on task vectors thinned so that later ones use only elements that earlier ones left.

    For every expert in order: R = τᵢ without the elements that earlier masks took; Mᵢ = the `keep` largest magnitudes
    of R in every `of` consecutive elements; θ = θp + scale · Σᵢ wᵢ Mᵢ ⊙ τᵢ. The order of the experts matters; where
    experts × keep exceeds `of`, later ones get what is left. The authors choose weights between 0.4 and 1 on
    validation data.

    Departs from the authors' code: the end of a tensor that is no whole block keeps its share (there it is zeroed, or
    refused).
    """
    if keep > of:
        raise RecipeError(
            f"method cabs: keep = {keep} is more than of = {of}.", hint="Keep at most as many elements as a block has."
        )
    merged, taken = base.reshape(-1).clone(), torch.zeros(base.numel(), dtype=base.dtype, device=base.device)
    for tau, c in zip(taus.reshape(len(taus), -1), scaled(weights, scale, len(taus), 1.0), strict=True):
        left = tau * (1 - taken)
        mask = keep_of_blocks(left, keep, of)
        accumulate(merged, left * mask, c)
        taken = (taken + mask).clamp(max=1)
    return merged.view(base.shape)
