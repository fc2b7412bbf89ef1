"""Merges that are not written to disk: made in memory, scored on the workbench, their scale tuned on validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

# What λ is searched over where a method has a `scale`: the papers' own grids lie between these.
SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)


def merged_in_memory(bound: Bound, match: Match, seed: int) -> Checkpoint:
    """The merge as a checkpoint in memory."""
    names = [*match.merged, *match.copied]
    sink = StateDict([info for info in output_infos(match) if info.name in set(names)])
    merge_into(sink, bound, match, seed=seed, names=names)
    return Checkpoint.open(sink.tensors, label=bound.method.name)


@dataclass(frozen=True, slots=True)
class Tuner:
    """Chooses a method's scale on the labelled validation rows; never on test rows."""

    bench: Workbench
    match: Match
    rows: Mapping[str, TaskRows]
    seed: int

    def tuned(self, bound: Bound, params: Mapping[str, Any]) -> tuple[Bound, Checkpoint]:
        """The method with its best scale, and its merge; where there is nothing to tune, or to tune on, as given."""
        judged = [task for task, rows in self.rows.items() if rows.labelled]
        method = bound.method
        if "scale" not in method.parameters.model_fields or "scale" in params or not judged:
            return bound, merged_in_memory(bound, self.match, self.seed)
        with phase("tuning", method=method.name):
            best = max(self._trials(bound, params, judged), key=lambda trial: trial[:2])
        emit("note", message=f"{method.name}: scale {best[2].values['scale']:g} scores best on the validation examples")
        return best[2], merged_in_memory(best[2], self.match, self.seed)

    def _trials(
        self, given: Bound, params: Mapping[str, Any], judged: list[str]
    ) -> Iterator[tuple[float, float, Bound]]:
        """(mean validation score, −scale, bound) per scale: of equal scores, the smaller step from the base wins."""
        from supermerge.tasks.evaluate import evaluate

        for done, scale in enumerate(SCALES):
            emit("progress", phase="tuning", done=done, total=len(SCALES), unit="scales")
            with muted():
                bound = replace(given.method.bind({**params, "scale": scale}), measured=given.measured)
                self.bench.load(merged_in_memory(bound, self.match, self.seed))
                scores = [evaluate(self.bench, task, self.rows[task].labelled) for task in judged]
            better = sum(score.value if score.higher_is_better else -score.value for score in scores) / len(scores)
            yield better, -scale, bound
