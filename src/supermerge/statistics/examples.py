"""Which examples a statistic of an expert is measured on, and in which batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from supermerge.errors import DataError
from supermerge.events import emit
from supermerge.methods import KINDS
from supermerge.tasks.rows import Row
from supermerge.tasks.splits import take

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


class LearningRows(Protocol):
    """The rows of one task that may be learned from: labelled validation rows and unlabelled ones. Never test rows."""

    @property
    def labelled(self) -> Sequence[Row]:
        """Rows with labels."""
        ...

    @property
    def unlabelled(self) -> Sequence[Row]:
        """Rows without."""
        ...


def chosen_rows(
    kind: str, bench: Workbench, expert: str, rows: Mapping[str, LearningRows], seed: int
) -> dict[str, list[Row]]:
    """Task → rows, for the tasks of `expert`, or for all tasks where the kind says so; empty where they have none.

    A statistic that needs labels has the labelled rows, another one the unlabelled rows, or the labelled ones where
    there are no others. Raises DataError where a task has rows, but none with labels for a statistic that needs them.
    """
    found: dict[str, list[Row]] = {}
    for task, spec in bench.specs.items():
        if (spec.expert != expert and not KINDS[kind].of_base and not KINDS[kind].on_all) or task not in rows:
            continue
        labelled, unlabelled = rows[task].labelled, rows[task].unlabelled
        needs_labels = KINDS[kind].labelled or spec.is_generation
        if needs_labels and unlabelled and not labelled:
            raise DataError(
                f"tasks.{task}: {kind} needs labelled examples, and there are none.",
                hint=f"Give tasks.{task}.validation, or choose an estimator that needs no labels.",
            )
        pool = labelled if needs_labels or not unlabelled else unlabelled
        if pool:
            found[task] = take(pool, KINDS[kind].most, seed)
    return found


def encoded(bench: Workbench, rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Example]]:
    """The rows as examples; a warning where a task has fewer of them than its head has classes."""
    for task, part in rows.items():
        labels = bench.heads[task].labels
        if labels is not None and len(part) < len(labels):
            emit(
                "warning",
                message=f"tasks.{task}: statistics of {len(part)} examples say little about {len(labels)} classes.",
            )
    return {task: bench.encode(task, part) for task, part in rows.items()}


def unpadded(examples: Sequence[Example], size: int) -> list[list[Example]]:
    """Batches of examples of one length, so that none holds padding; at most `size` examples each."""
    by_length: dict[tuple[int, int], list[Example]] = {}
    for example in examples:
        target = len(example.label) if isinstance(example.label, list) else 0
        by_length.setdefault((example.length, target), []).append(example)
    return [group[start : start + size] for group in by_length.values() for start in range(0, len(group), size)]
