"""The steps of a recipe's learning: one batch of every task and objective, and the loss of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from supermerge.learn.objectives import OBJECTIVES, distillation, entropy
from supermerge.learn.sampling import batch_indices

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

Part = tuple[str, dict[str, Tensor], Tensor | None]
"""(objective, inputs, the expert's logits `[n, classes]` where it teaches)."""


class Batches:
    """Endless steps, each a list of (task, part, weight) in the recipe's order; step s depends on nothing but s.

    `teachers` are the experts' logits `[classes]` by the id of the example.
    """

    def __init__(
        self,
        bench: Workbench,
        weights: Mapping[str, float],
        labelled: Mapping[str, Sequence[Example]],
        unlabelled: Mapping[str, Sequence[Example]],
        teachers: Mapping[int, Tensor],
        seed: int,
    ) -> None:
        self._bench, self._weights, self._seed = bench, weights, seed
        self._labelled, self._unlabelled, self._teachers = labelled, unlabelled, teachers

    def __iter__(self) -> Iterator[list[tuple[str, Part, float]]]:
        step = 0
        while True:
            yield [self._item(task, objective, step) for task in self._bench.specs for objective in self._weights]
            step += 1

    def _item(self, task: str, objective: str, step: int) -> tuple[str, Part, float]:
        spec = self._bench.specs[task]
        examples = (self._labelled if OBJECTIVES[objective] else self._unlabelled)[task]
        key = f"{task}/{'labelled' if OBJECTIVES[objective] else 'unlabelled'}"
        chosen = batch_indices(len(examples), spec.batch_size, step, seed=self._seed, key=key)
        batch = [examples[i] for i in chosen]
        inputs = self._bench.batch(task, batch)
        teacher = torch.stack([self._teachers[id(one)] for one in batch]) if objective == "distill" else None
        return task, (objective, inputs, teacher), spec.weight * self._weights[objective]

    def loss(self, _: nn.Module, task: str, part: Any) -> Tensor:
        """The objective of one part; the task's model shares its parameters with the one that is learned."""
        objective, inputs, teacher = part
        if objective == "cross_entropy":
            return self._bench.supervised_loss(task, inputs)
        logits = self._bench.logits(task, inputs)
        return entropy(logits) if teacher is None else distillation(logits, teacher)
