"""Task arithmetic."""

from __future__ import annotations

from torch import Tensor

from supermerge.methods.factored import FactoredMerge, combined
from supermerge.methods.parameters import Number, Weights
from supermerge.methods.registry import Values, method
from supermerge.methods.transforms import weighted_sum


def scaled(weights: Weights, scale: float | None, k: int, default: float) -> list[float]:
    """The coefficients cᵢ = scale · wᵢ: without weights, `default` each; with weights alone, the weights."""
    if scale is None:
        scale = default if weights is None else 1.0
    return [scale * weight for weight in weights or (1.0,) * k]


def factored_sum(values: Values, k: int) -> FactoredMerge:
    """Σᵢ cᵢ τᵢ."""
    c = scaled(values["weights"], values["scale"], k, 0.3)
    return lambda taus, context: combined(taus, c)


@method(
    "task_arithmetic",
    scope="element",
    factored=factored_sum,
    title="Task arithmetic",
    paper="https://arxiv.org/abs/2212.04089",
    cost="Reads every file once; memory of a few blocks.",
    use="The first thing to try for experts of different tasks, to forget a task (a negative weight), and as what to "
    "beat.",
    avoid="One scale for everything is too coarse when experts conflict or their changes differ much in size; the "
    "best scale falls with the number of experts.",
)
def task_arithmetic(base: Tensor, taus: Tensor, *, weights: Weights = None, scale: Number | None = None) -> Tensor:
    """The base plus a multiple of every task vector.

    θ = θp + scale · Σᵢ wᵢ τᵢ. Without weights every coefficient is `scale`, 0.3 by default (the paper's choice for
    eight tasks); with weights `scale` is 1. A negative weight forgets a task; the weights (1, −1, 1) of experts
    (C, A, B) give the paper's analogy.
    """
    return weighted_sum(base, taus, scaled(weights, scale, len(taus), 0.3))
