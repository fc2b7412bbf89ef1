"""How much every task counts, step by step: equally, or more the further it is from its expert."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from supermerge.learn.state import StepRecord

Balance = Callable[[Sequence[StepRecord]], Mapping[str, float]]
"""The steps so far → what each task's weight is multiplied by in the next one."""

_RATE = 0.1


def worst_first(references: Mapping[str, float]) -> Balance:
    """Weights that protect the task that is furthest from its expert: group DRO on the loss beyond the expert's.

    q(t) ∝ exp(η Σ_s (ℓ_s(t) − ℓ*(t))), with mean 1 over the tasks; ℓ_s(t) is the loss of task t in step s, ℓ*(t) =
    `references[t]` that of its expert, η = 0.1. A function of the losses seen alone, so that a resumed run goes on as
    it would have.

    Source: Sagawa et al., arXiv 1911.08731, algorithm 1. Departs from the paper: the expert's loss is subtracted, so
    that a task which is hard for everybody is not preferred; η is ten times as large, for runs of a hundred steps.
    """

    def weights(history: Sequence[StepRecord]) -> Mapping[str, float]:
        beyond = {
            task: sum(record.losses.get(task, reference) - reference for record in history)
            for task, reference in references.items()
        }
        largest = max(beyond.values(), default=0.0)
        scores = {task: math.exp(_RATE * (gap - largest)) for task, gap in beyond.items()}
        total = sum(scores.values())
        return {task: len(scores) * score / total for task, score in scores.items()}

    return weights
