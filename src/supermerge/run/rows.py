"""The rows of a recipe's tasks: read once, checked against each other, and kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from supermerge.errors import DataError
from supermerge.learn.session import LearningRows
from supermerge.tasks.data import read_rows
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.splits import check_disjoint


@dataclass(frozen=True, slots=True)
class TaskRows:
    """The rows of one task. `test` is for scoring alone: `learning` is all that a learner gets to see."""

    labelled: Sequence[Row]
    unlabelled: Sequence[Row]
    test: Sequence[Row]

    @property
    def learning(self) -> LearningRows:
        """What coefficients may be learned from."""
        return LearningRows(self.labelled, self.unlabelled)


def read_task_rows(tasks: Mapping[str, TaskSpec]) -> dict[str, TaskRows]:
    """Read every file that the tasks name.

    Raises DataError for bad files, validation rows that are also test rows, and validation rows of one class.
    """
    return {name: _read(name, spec) for name, spec in tasks.items()}


def _read(name: str, spec: TaskSpec) -> TaskRows:
    here = Path()
    labelled = read_rows(spec.validation, spec, here) if spec.validation else []
    unlabelled = read_rows(spec.unlabelled, spec, here, labelled=False) if spec.unlabelled else []
    test = read_rows(spec.test, spec, here) if spec.test else []
    check_disjoint(labelled, test, task=name)
    classes = {row.label for row in labelled}
    if spec.is_classification and len(classes) == 1:
        raise DataError(
            f"tasks.{name}.validation: all {len(labelled)} examples of {spec.validation} have the label "
            f"{next(iter(classes))!r}; expected at least two classes.",
            hint="Nothing can be learned from one class: add examples of the others.",
        )
    return TaskRows(labelled, unlabelled, test)


def digest(rows: Mapping[str, TaskRows]) -> str:
    """BLAKE3 of everything that is learned from: content and labels, in order."""
    hasher = blake3()
    for name, task in rows.items():
        for kind, part in (("labelled", task.labelled), ("unlabelled", task.unlabelled)):
            for row in part:
                hasher.update(f"{name}/{kind}/{row.hash}/{row.label!r}\n".encode())
    return hasher.hexdigest()
