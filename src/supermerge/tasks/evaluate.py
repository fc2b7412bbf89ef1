"""Score the weights that are on the workbench, or those of a checkpoint, on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from supermerge.checkpoint import TensorSource
from supermerge.errors import DataError
from supermerge.events import emit
from supermerge.tasks.encode import Example
from supermerge.tasks.generate import generate
from supermerge.tasks.metrics import Metric, metric
from supermerge.tasks.rows import Row
from supermerge.tasks.score import Score
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.workbench import Workbench

_BATCH = 32


def evaluate_source(
    bench: Workbench, name: str, source: TensorSource, rows: Mapping[str, Sequence[Row]]
) -> dict[str, Score]:
    """Load the weights of `source`, which has the base's file names, and score them on the rows of every task.

    Emits one `evaluated` event per task, under the model's `name`. The weights stay on the workbench.
    """
    bench.load(source)
    scores: dict[str, Score] = {}
    for task, examples in rows.items():
        score = evaluate(bench, task, examples)
        emit("evaluated", model=name, task=task, metric=score.metric, value=score.value)
        scores[task] = score
    return scores


def scoring_batch(spec: TaskSpec) -> int:
    """How many examples of a task are scored at once."""
    return max(spec.batch_size, _BATCH)


def evaluate(bench: Workbench, task: str, rows: Sequence[Row], *, batch_size: int | None = None) -> Score:
    """The task's metric on labelled rows, with the weights as they are. Exact match generates greedily.

    Raises DataError where there are no rows, or a row has no label.
    """
    spec = bench.specs[task]
    scorer = metric(spec.metric or "")
    examples = bench.encode(task, rows)
    unlabelled = next((example for example in examples if example.label is None), None)
    if unlabelled is not None:
        raise DataError(f"{unlabelled.row.place}: no label; task {task!r} cannot be scored on it.")
    # Batches of similar lengths need little padding.
    examples.sort(key=lambda example: example.length, reverse=True)
    size = batch_size or scoring_batch(spec)
    with torch.no_grad():
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            if spec.metric == "exact_match":
                scorer.update(generate(bench, task, part), [example.row.target for example in part])
            else:
                _score(bench, task, part, scorer)
            emit(
                "progress", phase="evaluating", done=start + len(part), total=len(examples), unit=f"examples of {task}"
            )
    return scorer.compute()


def rehearse(bench: Workbench, task: str, rows: Sequence[Row]) -> None:
    """Let the task's model answer a batch of these rows, as scoring would. Errors: as `evaluate`."""
    examples = bench.encode(task, rows[: bench.specs[task].batch_size])
    with torch.no_grad():
        if bench.specs[task].metric == "exact_match":
            generate(bench, task, examples)
        else:
            bench.places(task, bench.batch(task, examples))


def _score(bench: Workbench, task: str, examples: Sequence[Example], scorer: Metric) -> None:
    logits, targets = bench.places(task, bench.batch(task, examples))
    scorer.update(logits, targets)
