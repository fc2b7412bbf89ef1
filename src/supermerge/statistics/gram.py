"""Gram matrices of the inputs of linear layers, on the model of a workbench."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from supermerge.statistics.forward import watch
from supermerge.statistics.linears import inputs_first, shared_linears

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


class Grams:
    """G = (1/n) Σ x xᵀ [inputs, inputs] by weight, x a layer's input at every one of the n tokens that it has seen."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._tokens: Counter[str] = Counter()
        self.inputs_first: set[str] = set()
        """Those weights, of all that were seen, that are stored as [inputs, outputs]."""

    def see(self, name: str, module: nn.Module, rows: Tensor) -> None:
        """Add the inputs [tokens, inputs] of one batch."""
        if name not in self._totals:
            self._totals[name] = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
        self._totals[name].addmm_(rows.T, rows)
        self._tokens[name] += len(rows)
        if inputs_first(module):
            self.inputs_first.add(name)

    @property
    def means(self) -> dict[str, Tensor]:
        """By weight; a layer that no example passes through has none."""
        return {name: total / self._tokens[name] for name, total in self._totals.items()}


def input_grams(
    bench: Workbench, examples: Mapping[str, Sequence[Example]], only: frozenset[str] | None = None
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """G by weight of `bench.model`, over all tokens (patches, places), and the weights stored as [inputs, outputs].

    Of all linear layers, or those whose weights are in `only`.
    """
    grams = Grams()
    watch(bench, examples, lambda bench, task: shared_linears(bench, task, only), grams.see)
    return grams.means, frozenset(grams.inputs_first)
