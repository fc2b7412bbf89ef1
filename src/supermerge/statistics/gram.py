"""Gram matrices of the inputs of linear layers, on the model of a workbench."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from supermerge.events import emit
from supermerge.statistics.examples import unpadded
from supermerge.statistics.linears import inputs_first, shared_linears

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


def input_grams(
    bench: Workbench, examples: Mapping[str, Sequence[Example]]
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """G = (1/n) Σ x xᵀ [inputs, inputs] by weight of `bench.model`, and the weights stored as [inputs, outputs].

    x is the layer's input at every one of the n tokens (patches, places) of all examples. Batches hold examples of one
    length, so that no padding is counted. Layers that no example passes through have none.
    """
    totals: dict[str, Tensor] = {}
    tokens: Counter[str] = Counter()
    turned: set[str] = set()

    def observer(name: str) -> Callable[[nn.Module, Any], None]:
        def observe(module: nn.Module, inputs: Any) -> None:
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            if name not in totals:
                totals[name] = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
            totals[name].addmm_(rows.T, rows)
            tokens[name] += len(rows)

        return observe

    count, done = sum(len(part) for part in examples.values()), 0
    for task, part in examples.items():
        with ExitStack() as hooks, torch.no_grad():
            for name, module in shared_linears(bench, task):
                handle = module.register_forward_pre_hook(observer(name))
                hooks.callback(handle.remove)
                if inputs_first(module):
                    turned.add(name)
            for batch in unpadded(part, bench.specs[task].batch_size):
                bench.places(task, bench.batch(task, batch))
                done += len(batch)
                emit("progress", phase="statistics", done=done, total=count, unit="examples")
    return {name: total / tokens[name] for name, total in totals.items()}, frozenset(turned & totals.keys())
