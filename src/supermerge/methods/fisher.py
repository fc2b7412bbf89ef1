"""Fisher merging."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from supermerge.methods.measured import Estimator, Statistics
from supermerge.methods.parameters import NonNegative, Shares
from supermerge.methods.registry import Values, method
from supermerge.methods.transforms import combine, normalised


def wanted(values: Values) -> tuple[str, ...]:
    """The one estimate of the Fisher information that the parameters ask for."""
    estimator: Any = values["estimator"]
    return (f"fisher_{estimator}",)


@method(
    "fisher",
    scope="element",
    title="Fisher merging",
    paper="https://arxiv.org/abs/2111.09832",
    statistics=wanted,
    tune=("floor", (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-6)),
    cost="Measures once per expert: one forward and backward pass per example (`exact`: one backward pass per example "
    "and class), in the memory of three models; kept beside the expert, as large as it. Then reads every file once.",
    use="Experts of different tasks with some data: every parameter goes to the experts that are sure about it.",
    avoid="Experts that are certain of all their answers: their gradients, and so their Fisher information, are "
    "rounding.",
)
def fisher(
    base: Tensor,
    taus: Tensor,
    *,
    statistics: Statistics,
    weights: Shares = None,
    estimator: Estimator = "sampled",
    normalize: bool = True,
    floor: NonNegative = 1e-6,
) -> Tensor:
    """The average of the experts, every parameter weighted by how much the expert's predictions depend on it.

    θ = Σᵢ wᵢ Fᵢ θᵢ / Σᵢ wᵢ Fᵢ, element by element, with Fᵢ the diagonal of expert i's Fisher information on its own
    task: the mean over examples of Σ_y p(y|x) (∂ log p(y|x) / ∂θ)². `estimator` says which y: all (`exact`), one drawn
    from the model's own p(y|x) (`sampled`), or the label (`empirical`, which needs labels). `normalize` divides Fᵢ by
    its size, so that an expert's overall certainty does not count. Elements of Fᵢ below `floor` times its root mean
    square are raised to that. Tensors that get no gradient take the weighted mean.

    Departs from the paper: there y is always summed over, and the floor is 1e-6 whatever the size of Fᵢ.
    """
    found = statistics.of(f"fisher_{estimator}")
    w = weights or (1.0,) * len(taus)
    plain = normalised(w, "fisher")
    if found is None:
        return base + combine(taus, plain)
    total, moved = torch.zeros_like(base), torch.zeros_like(base)
    for tau, information, size, weight in zip(taus, found, statistics.sizes[f"fisher_{estimator}"], w, strict=True):
        share = information.to(base).clamp(min=floor * size) * (weight / size if normalize and size > 0 else weight)
        total += share
        moved += share * tau
    # Where nobody knows anything, nobody counts more than the others.
    return base + torch.where(total > 0, moved / total.clamp(min=torch.finfo(total.dtype).tiny), combine(taus, plain))
