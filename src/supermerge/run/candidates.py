"""Merges that are not written to disk: made in memory, scored on the workbench, tuned on validation examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from supermerge.assemble import merge_into, output_infos
from supermerge.assemble.merge import StateDict
from supermerge.checkpoint import Checkpoint, Match
from supermerge.events import emit, muted, phase
from supermerge.methods import Bound
from supermerge.run.rows import TaskRows

if TYPE_CHECKING:
    from supermerge.run.judging import Judge
    from supermerge.tasks.score import Score
    from supermerge.tasks.workbench import Workbench


def merged_in_memory(bound: Bound, match: Match, seed: int) -> Checkpoint:
    """The merge as a checkpoint in memory."""
    names = [*match.merged, *match.copied]
    sink = StateDict([info for info in output_infos(match) if info.name in set(names)])
    merge_into(sink, bound, match, seed=seed, names=names)
    return Checkpoint.open(sink.tensors, label=bound.method.name)


@dataclass(frozen=True, slots=True)
class Tuner:
    """Chooses a method's main parameter on the labelled validation rows; never on test rows."""

    bench: Workbench
    match: Match
    rows: Mapping[str, TaskRows]
    seed: int
    judge: Judge | None = None

    def tuned(self, bound: Bound, params: Mapping[str, Any]) -> tuple[Bound, Checkpoint]:
        """The method with its best candidate, and its merge; where there is nothing to tune, or to tune on, as given.

        A parameter that the recipe gives is not tuned.
        """
        judged = [task for task, rows in self.rows.items() if rows.labelled]
        found = bound.method.candidates
        if found is None or found[0] in params or not judged:
            merged = merged_in_memory(bound, self.match, self.seed)
            if self.judge is not None:
                self.bench.load(merged)
                self.judge.now()
            return bound, merged
        name = found[0]
        with phase("tuning", method=bound.method.name):
            trials = list(self._trials(bound, params, name, found[1], judged))
        best = max(trials, key=lambda trial: trial.rank(everywhere=True)).bound
        if self.judge is not None:
            # What tuning without the rows held back would have given.
            self.judge.scores = max(trials, key=lambda trial: trial.rank(everywhere=False)).held_back
        emit(
            "note",
            message=f"{bound.method.name}: {name} {best.values[name]:g} scores best on the validation examples",
        )
        return best, merged_in_memory(best, self.match, self.seed)

    def _trials(
        self, given: Bound, params: Mapping[str, Any], name: str, values: Sequence[float], judged: list[str]
    ) -> Iterator[_Trial]:
        """Every candidate, the mildest first: of equal scores, that one wins."""
        from supermerge.tasks.evaluate import evaluate

        for done, value in enumerate(values):
            emit("progress", phase="tuning", done=done, total=len(values), unit="candidates")
            with muted():
                bound = replace(given.method.bind({**params, name: value}), measured=given.measured)
                self.bench.load(merged_in_memory(bound, self.match, self.seed))
                labelled = (
                    {task: self.rows[task].labelled for task in judged} if self.judge is None else self.judge.kept
                )
                scores = {task: evaluate(self.bench, task, rows) for task, rows in labelled.items()}
                held_back = {} if self.judge is None else self.judge.now()
            yield _Trial(done, bound, scores, held_back)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A candidate, its scores on the labelled rows, or, where it is judged, on those kept and those held back."""

    place: int
    bound: Bound
    scores: Mapping[str, Score]
    held_back: Mapping[str, Score]

    def rank(self, *, everywhere: bool) -> tuple[float, int]:
        """How good it is, by the mean over the tasks: of equal ones, the milder wins."""
        total = 0.0
        for task, score in self.scores.items():
            parts = [score, self.held_back[task]] if everywhere and task in self.held_back else [score]
            value = sum(part.value * part.n for part in parts) / sum(part.n for part in parts)
            total += value if score.higher_is_better else -value
        # Sums of equal scores may differ in their last bits.
        return round(total / len(self.scores), 9), -self.place
