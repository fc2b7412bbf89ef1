"""The linear layers of a task's model whose weights are the shared model's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from supermerge.tasks.workbench import Workbench


def shared_linears(bench: Workbench, task: str, only: frozenset[str] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """(name of the weight in `bench.model`, module in the task's model): all, or those in `only`.

    Heads are not the shared model's. A weight that is also a table of embeddings is none of a linear layer.
    """
    names = {id(parameter): name for name, parameter in bench.model.named_parameters()}
    module = bench.heads[task].module
    tables = {id(each.weight) for each in module.modules() if isinstance(each, nn.Embedding)}
    for each in module.modules():
        if isinstance(each, nn.Linear | Conv1D) and id(each.weight) in names and id(each.weight) not in tables:
            name = names[id(each.weight)]
            if only is None or name in only:
                yield name, each


def inputs_first(module: nn.Module) -> bool:
    """Whether the layer's weight is [inputs, outputs]."""
    return isinstance(module, Conv1D)
