"""Arcee Fusion: take over the changes that matter."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.registry import method
from supermerge.methods.selection import nth_largest


@method(
    "arcee_fusion",
    scope="tensor",
    title="Arcee Fusion",
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    most=1,
    cost="Reads every file once; whole tensors in memory.",
    use="Taking over only the changes of one expert that stand out.",
    avoid="More than one expert, and experts whose changes are spread evenly: then nearly nothing is taken.",
)
def arcee_fusion(base: Tensor, taus: Tensor) -> Tensor:
    """The base with the most important changes of one expert.

    Importance of an element = |τ| · KL(softmax(θ₁) ‖ softmax(θp)) along the last dimension; elements of at least
    median + 1.5 (q75 − q25) of the tensor's importances take the expert's value, others keep the base's.

    Departs from its source: quantiles are exact, not of a random sample of large tensors.
    """
    tau = taus[0]
    p, q = torch.softmax(base + tau, dim=-1) + 1e-8, torch.softmax(base, dim=-1) + 1e-8
    importance = tau.abs() * (p * (p / q).log()).sum(dim=-1, keepdim=True)
    count = importance.numel()
    q25, median, q75 = (nth_largest(importance, count - int(q * (count - 1)), signed=True) for q in (0.25, 0.5, 0.75))
    return base + tau * (importance >= median + 1.5 * (q75 - q25))
