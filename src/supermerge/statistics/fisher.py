"""The diagonal of the Fisher information of the model on a workbench, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from blake3 import blake3
from torch import Tensor

from supermerge.events import emit
from supermerge.statistics.likelihood import terms

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
    count = sum(len(part) for part in examples.values())
    done = 0
    for task, part in examples.items():
        for position, example in enumerate(part):
            key = "\0".join((str(seed), kind, task, str(position)))
            draw = torch.Generator().manual_seed(int.from_bytes(blake3(key.encode()).digest(length=7), "little"))
            logits, targets = bench.places(task, bench.batch(task, [example]))
            said = terms(kind, bench.specs[task].type, logits, targets, draw)
            for left, (term, weight) in zip(range(len(said) - 1, -1, -1), said, strict=True):
                gradients = torch.autograd.grad(
                    term, list(parameters.values()), retain_graph=left > 0, allow_unused=True
                )
                for total, gradient in zip(found.values(), gradients, strict=True):
                    if gradient is not None:
                        total.addcmul_(gradient, gradient, value=weight)
            done += 1
            emit("progress", phase="statistics", done=done, total=count, unit="examples")
    for total in found.values():
        total /= count
    return found
