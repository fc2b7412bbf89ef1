"""What a model answers: example by example, with the weights that are on the workbench; test answers are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from blake3 import blake3
from torch import nn

from supermerge.checkpoint import TensorSource
from supermerge.run.rows import TaskRows
from supermerge.tasks.rows import Row
from supermerge.tasks.workbench import Workbench

_BATCH = 50


@dataclass(frozen=True, slots=True)
class Answers:
    """Which examples of a task were right, in the order of the rows, and the mean cross-entropy in nats."""

    right: list[bool]
    loss: float

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return sum(self.right) / len(self.right)


def answers(bench: Workbench, task: str, rows: Sequence[Row]) -> Answers:
    """The task's model on labelled rows."""
    examples = bench.encode(task, rows)
    order = sorted(range(len(examples)), key=lambda one: examples[one].length)
    right, loss = [False] * len(rows), 0.0
    with torch.no_grad():
        for start in range(0, len(order), _BATCH):
            some = order[start : start + _BATCH]
            batch = bench.batch(task, [examples[one] for one in some])
            logits = bench.logits(task, {name: value for name, value in batch.items() if name != "labels"})
            labels = batch["labels"]
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
            for one, hit in zip(some, (logits.argmax(dim=-1) == labels).tolist(), strict=True):
                right[one] = hit
    return Answers(right, loss / len(rows))


def validation(bench: Workbench, rows: Mapping[str, TaskRows]) -> tuple[float, float]:
    """(mean accuracy, mean loss) over the tasks, on their labelled rows."""
    found = [answers(bench, task, each.labelled) for task, each in rows.items()]
    return sum(one.accuracy for one in found) / len(found), sum(one.loss for one in found) / len(found)


def test_answers(
    bench: Workbench, source: TensorSource, rows: Mapping[str, TaskRows], kept: Path
) -> tuple[str, dict[str, Answers]]:
    """The hash of the weights, and their answers on the test rows: computed once for the same weights and rows."""
    bench.load(source)
    hasher = blake3()
    for name in sorted(source.tensors):
        hasher.update(name.encode()).update(source.read(name).contiguous().view(torch.uint8).numpy().tobytes())
    weights = hasher.hexdigest()[:24]
    found = {}
    for task, each in rows.items():
        digest = blake3("".join(f"{row.hash}/{row.label}\n" for row in each.test).encode()).hexdigest()[:12]
        file = kept / f"{weights}.{task}.{digest}.json"
        if file.exists():
            found[task] = Answers(**json.loads(file.read_text(encoding="utf-8")))
            continue
        found[task] = answers(bench, task, each.test)
        kept.mkdir(parents=True, exist_ok=True)
        staging = file.with_suffix(f".partial{os.getpid()}")
        staging.write_text(json.dumps({"right": found[task].right, "loss": found[task].loss}), encoding="utf-8")
        staging.replace(file)
    return weights, found
