"""`train`: one expert per task, and one model trained on all tasks together; what exists is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from suites.image_pupil import ImagePupil
from suites.prepare import home, read_part
from suites.tasks import SUITES, Suite
from supermerge.demo.experts import Job, train_missing
from supermerge.demo.pupils import Pupil, TextPupil
from supermerge.demo.sources.corpus import Example

MULTITASK = "multitask"
MULTITASK_EXAMPLES = 1000
"""Of every task: the model that is trained on all tasks together is the costliest."""


def expert_directory(suite: Suite, task: str) -> Path:
    """Where the expert of a task is."""
    return home(suite) / "experts" / task


def multitask_directory(suite: Suite, task: str) -> Path:
    """Where the multi-task model is with the head of a task; its backbone is the same in all of them."""
    return home(suite) / MULTITASK / task


def train(suite: Suite, only: Sequence[str] = ()) -> None:
    """Train what is missing, or what `only` names of it (tasks, `multitask`), as many at a time as there are cores."""
    examples = {task.name: len(read_part(suite, task.name, "train")) for task in suite.tasks}
    jobs = [
        Job(task, partial(pupil, suite.name, task), number, suite.training, expert_directory(suite, task))
        for task, number in examples.items()
    ]
    shared = sum(min(number, MULTITASK_EXAMPLES) for number in examples.values())
    together = Job(MULTITASK, partial(pupils, suite.name), shared, suite.multitask, home(suite) / MULTITASK)
    train_missing([job for job in (*jobs, together) if not only or job.name in only])


def pupil(name: str, task: str, most: int | None = None) -> Pupil:
    """The base with a new head for a task, and the task's training examples (`most` of them)."""
    suite = SUITES[name]
    rows = read_part(suite, task, "train")
    labels = sorted({row["label"] for row in rows})
    rows = rows[:most]
    base = home(suite) / "base"
    if suite.column == "image":
        return ImagePupil(base, rows, labels)
    return TextPupil(base, [Example(row["text"], row["label"]) for row in rows], labels, suite.training.max_length)


def pupils(name: str) -> Mapping[str, Pupil]:
    """The pupils of all tasks, on one backbone."""
    found = {task.name: pupil(name, task.name, MULTITASK_EXAMPLES) for task in SUITES[name].tasks}
    shared = next(iter(found.values())).model.base_model
    for one in found.values():
        setattr(one.model, one.model.base_model_prefix, shared)
    return found
