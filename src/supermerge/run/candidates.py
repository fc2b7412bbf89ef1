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

    def tuned(self, bound: Bound, params: Mapping[str, Any]) -> tuple[Bound, Checkpoint]:
        """The method with its best candidate, and its merge; where there is nothing to tune, or to tune on, as given.

        A parameter that the recipe gives is not tuned.
        """
        judged = [task for task, rows in self.rows.items() if rows.labelled]
        found = bound.method.candidates
        if found is None or found[0] in params or not judged:
            return bound, merged_in_memory(bound, self.match, self.seed)
        name = found[0]
        with phase("tuning", method=bound.method.name):
            best = max(self._trials(bound, params, name, found[1], judged), key=lambda trial: trial[:2])[2]
        emit(
            "note",
            message=f"{bound.method.name}: {name} {best.values[name]:g} scores best on the validation examples",
        )
        return best, merged_in_memory(best, self.match, self.seed)

    def _trials(
        self, given: Bound, params: Mapping[str, Any], name: str, values: Sequence[float], judged: list[str]
    ) -> Iterator[tuple[float, float, Bound]]:
        """(mean validation score, −place, bound) per candidate: of equal scores, the milder wins."""
        from supermerge.tasks.evaluate import evaluate

        for done, value in enumerate(values):
            emit("progress", phase="tuning", done=done, total=len(values), unit="candidates")
            with muted():
                bound = replace(given.method.bind({**params, name: value}), measured=given.measured)
                self.bench.load(merged_in_memory(bound, self.match, self.seed))
                scores = [evaluate(self.bench, task, self.rows[task].labelled) for task in judged]
            better = sum(score.value if score.higher_is_better else -score.value for score in scores) / len(scores)
            yield better, -done, bound
