"""What single examples' gradients say of every element of the model on a workbench: Fisher information, sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supermerge.statistics.likelihood import said

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

Add = Callable[[Tensor, Tensor, Tensor, float], object]
"""(total, gradient, parameter, weight) → nothing: adds one gradient's part to the total, in place."""


def diagonal_fisher(
    bench: Workbench, kind: str, examples: Mapping[str, Sequence[Example]], seed: int
) -> dict[str, Tensor]:
    """F = (1/n) Σ_x Σ_y p(y|x) (∂ log p(y|x) / ∂θ)² over the examples of all tasks, by parameter of `bench.model`."""

    def add(total: Tensor, gradient: Tensor, parameter: Tensor, weight: float) -> None:
        total.addcmul_(gradient, gradient, value=weight)

    return _mean(bench, kind, examples, seed, add)


def sensitivity(bench: Workbench, kind: str, examples: Mapping[str, Sequence[Example]], seed: int) -> dict[str, Tensor]:
    """(1/n) Σ_x |θ ∂ log p(y|x) / ∂θ| over the examples of all tasks, by parameter of `bench.model`."""

    def add(total: Tensor, gradient: Tensor, parameter: Tensor, weight: float) -> None:
        total.add_((gradient * parameter).abs_(), alpha=weight)

    return _mean(bench, kind, examples, seed, add)


def _mean(
    bench: Workbench, kind: str, examples: Mapping[str, Sequence[Example]], seed: int, add: Add
) -> dict[str, Tensor]:
    """Over examples. Parameters that get no gradient have 0.

    One forward pass per example and one backward pass per example and y, so that every gradient counts by itself: the
    square of a batch's gradient is another thing.
    """
    parameters = {name: one for name, one in bench.model.named_parameters() if one.requires_grad}
    found = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in parameters.items()}
    for term, weight, left in said(bench, kind, examples, seed):
        gradients = torch.autograd.grad(term, list(parameters.values()), retain_graph=left > 0, allow_unused=True)
        for total, gradient, parameter in zip(found.values(), gradients, parameters.values(), strict=True):
            if gradient is not None:
                add(total, gradient, parameter.detach(), weight)
    count = sum(len(part) for part in examples.values())
    for total in found.values():
        total /= count
    return found
