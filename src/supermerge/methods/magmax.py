"""MagMax: of every element, the task vector that moved it most."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.parameters import Number
from supermerge.methods.registry import method


def _process(base: Tensor, taus: Tensor) -> list[Tensor]:
    """Every τᵢ with only the elements at which it is the one taken."""
    owned: list[Tensor] = []
    largest = torch.zeros_like(base)
    for tau in taus:
        wins = (torch.sign(tau.abs() - largest.abs()) + 1).clamp(max=1)
        owned = [*(own * (1 - wins) for own in owned), tau * wins]
        largest = tau * wins + largest * (1 - wins)
    return owned


@method(
    "magmax",
    scope="element",
    title="MagMax",
    paper="https://arxiv.org/abs/2407.06322",
    process=_process,
    cost="Reads every file once; memory of a few blocks.",
    use="Experts trained one after the other on a sequence of tasks, the paper's setting.",
    avoid="Experts of one task: noise of large magnitude wins over agreement.",
)
def magmax(base: Tensor, taus: Tensor, *, scale: Number = 0.5) -> Tensor:
    """The base plus, per element, the task vector of largest magnitude there.

    θ = θp + scale · τ_{i*}, i* = argmaxᵢ |τᵢ| per element; of equal magnitudes the later expert wins, as in the
    authors' code, whose scale for eight independent experts is 0.5.
    """
    largest = taus[0]
    for tau in taus[1:]:
        wins = (torch.sign(tau.abs() - largest.abs()) + 1).clamp(max=1)
        largest = tau * wins + largest * (1 - wins)
    return base + scale * largest
