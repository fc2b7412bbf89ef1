"""Passthrough: one expert's tensors as they are."""

from __future__ import annotations

from torch import Tensor

from supermerge.methods.factored import FactoredMerge
from supermerge.methods.parameters import Number
from supermerge.methods.registry import Values, method


def on_factors(values: Values, k: int) -> FactoredMerge | None:
    """θ₁ − θp = τ₁, where the base stays as it is."""
    return (lambda taus, context: taus[0]) if values["scale"] == 1 else None


@method(
    "passthrough",
    scope="element",
    factored=on_factors,
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
