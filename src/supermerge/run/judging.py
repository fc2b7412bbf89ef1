"""Judges what is on the workbench by validation rows that are held back from learning and tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from supermerge.events import muted
from supermerge.run.prepared import Prepared
from supermerge.tasks.rows import Row
from supermerge.tasks.splits import split_held_back

if TYPE_CHECKING:
    from supermerge.tasks.score import Score
    from supermerge.tasks.workbench import Workbench


@dataclass(slots=True)
class Judge:
    """`kept` are the labelled rows to learn from and `held_back` the others, as a session divides them.

    `scores` are those on `held_back`, the last time that `now` was called.
    """

    bench: Workbench
    kept: Mapping[str, Sequence[Row]]
    held_back: Mapping[str, Sequence[Row]]
    scores: Mapping[str, Score] = field(default_factory=dict)

    @classmethod
    def of(cls, ready: Prepared) -> Self | None:
        """None where some task has no labelled rows to hold back."""
        bench, seed = ready.require_bench("compare"), ready.recipe.seed
        kept: dict[str, Sequence[Row]] = {}
        held_back: dict[str, Sequence[Row]] = {}
        for task, rows in ready.rows.items():
            fraction = bench.specs[task].held_back if rows.labelled else 0.0
            kept[task], held_back[task] = split_held_back(rows.labelled, fraction, seed)
        return cls(bench, kept, held_back) if all(held_back.values()) else None

    def now(self) -> Mapping[str, Score]:
        """Score the weights that are on the workbench."""
        from supermerge.tasks.evaluate import evaluate

        with muted():
            self.scores = {task: evaluate(self.bench, task, rows) for task, rows in self.held_back.items()}
        return self.scores

    @property
    def mean(self) -> float | None:
        """The mean over the tasks; None before anything was judged."""
        return sum(score.value for score in self.scores.values()) / len(self.scores) if self.scores else None
