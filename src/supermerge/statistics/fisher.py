"""The diagonal of the Fisher information of the model on a workbench, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supermerge.statistics.likelihood import said

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


def diagonal_fisher(
    bench: Workbench, kind: str, examples: Mapping[str, Sequence[Example]], seed: int
) -> dict[str, Tensor]:
    """F = (1/n) Σ_x Σ_y p(y|x) (∂ log p(y|x) / ∂θ)² over the examples of all tasks, by parameter of `bench.model`.

    One forward pass per example and one backward pass per example and y, so that every gradient is squared by itself:
    the square of a batch's gradient is another thing. Parameters that get no gradient have 0.
    """
    parameters = {name: one for name, one in bench.model.named_parameters() if one.requires_grad}
    found = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in parameters.items()}
    for term, weight, left in said(bench, kind, examples, seed):
        gradients = torch.autograd.grad(term, list(parameters.values()), retain_graph=left > 0, allow_unused=True)
        for total, gradient in zip(found.values(), gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient, value=weight)
    count = sum(len(part) for part in examples.values())
    for total in found.values():
        total /= count
    return found
