"""Gram matrices of the gradients at the outputs of linear layers: the second factor of K-FAC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from supermerge.statistics.likelihood import said
from supermerge.statistics.linears import shared_linears

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


def gradient_grams(
    bench: Workbench,
    kind: str,
    examples: Mapping[str, Sequence[Example]],
    seed: int,
    only: frozenset[str] | None = None,
) -> dict[str, Tensor]:
    """B = (1/n) Σ g gᵀ [outputs, outputs] by weight of `bench.model`, with g = ∂ log p(y|x) / ∂ output.

    The sum goes over the n tokens (patches, places) of all examples, one example at a time. Layers that no gradient
    reaches have none. Of all linear layers, or those whose weights are in `only`.
    """
    totals: dict[str, Tensor] = {}
    tokens: Counter[str] = Counter()
    outputs: list[tuple[str, Tensor]] = []

    def observer(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: outputs.append((name, output))

    for task, part in examples.items():
        with ExitStack() as hooks:
            for name, module in shared_linears(bench, task, only):
                hooks.callback(module.register_forward_hook(observer(name)).remove)
            for term, _, _ in said(bench, kind, {task: part}, seed):
                gradients = torch.autograd.grad(term, [output for _, output in outputs], allow_unused=True)
                for (name, _), gradient in zip(outputs, gradients, strict=True):
                    if gradient is not None:
                        rows = gradient.reshape(-1, gradient.shape[-1]).float()
                        found = totals.setdefault(name, torch.zeros(rows.shape[1], rows.shape[1], device=rows.device))
                        found.addmm_(rows.T, rows)
                        tokens[name] += len(rows)
                outputs.clear()
    return {name: total / tokens[name] for name, total in totals.items()}
