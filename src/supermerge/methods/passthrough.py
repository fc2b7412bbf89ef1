"""Passthrough: one expert's tensors as they are."""

from __future__ import annotations

from torch import Tensor

from supermerge.methods.parameters import Number
from supermerge.methods.registry import method


@method(
    "passthrough",
    scope="element",
    title="Passthrough",
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    needs_base=False,
    most=1,
    cost="Reads every file once; memory of a few blocks.",
    use="In rules, for tensors that one expert alone shall decide.",
    avoid="Merging: it takes one expert.",
)
def passthrough(base: Tensor, taus: Tensor, *, scale: Number = 1.0) -> Tensor:
    """One expert's weights.

    θ = scale · θ₁. Useful in rules, for tensors that one expert alone shall decide.
    """
    return scale * (base + taus[0])
