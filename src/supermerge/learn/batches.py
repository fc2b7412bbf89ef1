"""The steps of a recipe's learning: one batch of every task and objective, and the loss of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from supermerge.learn.objectives import OBJECTIVES, distillation, entropy, feature_distance
from supermerge.learn.sampling import batch_indices

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

Part = tuple[str, dict[str, Tensor], Tensor | None]
"""(objective, inputs, the expert's logits `[n, classes]` or features `[n, width]` where it teaches)."""

Teachers = Mapping[str, Mapping[int, Tensor]]
"""What the experts make of every example, by objective and the example's id: logits `[classes]`, features `[width]`."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is learned from, or measured on: labelled examples by task, and those that entropy and teachers work on.

    Both have the same tasks, in the recipe's order; they are the ones that are learned.
    """

    labelled: dict[str, list[Example]]
    unlabelled: dict[str, list[Example]]

    def of(self, task: str, objective: str) -> Sequence[Example]:
        """The examples that an objective reads."""
        return (self.labelled if OBJECTIVES[objective].labelled else self.unlabelled)[task]


class Batches:
    """Endless steps, each a list of (task, part, weight) in the recipe's order; step s depends on nothing but s."""

    def __init__(
        self,
        bench: Workbench,
        weights: Mapping[str, float],
        material: Material,
        teachers: Teachers,
        seed: int,
    ) -> None:
        self._bench, self._weights, self._seed = bench, weights, seed
        self._material, self._teachers = material, teachers

    def __iter__(self) -> Iterator[list[tuple[str, Part, float]]]:
        step = 0
        while True:
            yield [self._item(task, objective, step) for task in self._material.labelled for objective in self._weights]
            step += 1

    def _item(self, task: str, objective: str, step: int) -> tuple[str, Part, float]:
        spec, examples = self._bench.specs[task], self._material.of(task, objective)
        key = f"{task}/{'labelled' if OBJECTIVES[objective].labelled else 'unlabelled'}"
        chosen = batch_indices(len(examples), spec.batch_size, step, seed=self._seed, key=key)
        part = self._part(task, objective, [examples[i] for i in chosen])
        return task, part, spec.weight * self._weights[objective]

    def _part(self, task: str, objective: str, examples: Sequence[Example]) -> Part:
        inputs = self._bench.batch(task, examples)
        known = self._teachers.get(objective)
        return objective, inputs, None if known is None else torch.stack([known[id(one)] for one in examples])

    def loss(self, _: nn.Module, task: str, part: Any) -> Tensor:
        """The objective of one part; the task's model shares its parameters with the one that is learned."""
        objective, inputs, teacher = part
        if objective == "cross_entropy":
            return self._bench.supervised_loss(task, inputs)
        if objective == "features" and teacher is not None:
            return feature_distance(self._bench.features(task, inputs), teacher)
        logits = self._bench.logits(task, inputs)
        return entropy(logits) if teacher is None else distillation(logits, teacher)

    def measure(self, held_back: Material) -> float:
        """What the steps minimise, on `held_back`: Σ_task weight Σ_objective weight · mean loss.

        Only objectives with a target count (see `OBJECTIVES`), and only tasks that hold examples back.
        """
        return sum(
            self._bench.specs[task].weight * weight * self._mean(task, objective, held_back)
            for task in held_back.labelled
            for objective, weight in self._weights.items()
            if OBJECTIVES[objective].target
        )

    def loss_of(self, task: str) -> float:
        """The mean over the objectives, by weight, of one task's loss on all that is learned from."""
        losses = [weight * self._mean(task, name, self._material) for name, weight in self._weights.items()]
        return sum(losses) / sum(self._weights.values())

    def _mean(self, task: str, objective: str, material: Material) -> float:
        """The mean loss over the examples; 0 without any."""
        examples, size, total = material.of(task, objective), self._bench.specs[task].batch_size, 0.0
        for start in range(0, len(examples), size):
            some = examples[start : start + size]
            loss = float(self.loss(self._bench.model, task, self._part(task, objective, some)))
            total += loss * len(some) / len(examples)
        return total
