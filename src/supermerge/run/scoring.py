"""Scores of the base, the experts and merges on the test rows, as rows of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from supermerge.checkpoint import TensorSource
from supermerge.report.results import ModelResult, Score, TaskResult
from supermerge.resolve import Opened
from supermerge.resources import peak_bytes
from supermerge.run.rows import TaskRows
from supermerge.tasks.score import Score as TaskScore
from supermerge.tasks.score import higher_is_better

if TYPE_CHECKING:
    from supermerge.tasks.workbench import Workbench


@dataclass(slots=True)
class Scoring:
    """Scores models on the test rows of all tasks that have some. Experts are scored on their own tasks first."""

    bench: Workbench
    opened: Opened
    rows: Mapping[str, TaskRows]
    of: dict[str, dict[str, TaskScore]] = field(default_factory=dict)
    """What was scored so far, by the id of its row."""
    _of_experts: dict[str, TaskScore] = field(default_factory=dict)

    @property
    def tested(self) -> list[str]:
        """The tasks that have test rows."""
        return [name for name, rows in self.rows.items() if rows.test]

    def tasks(self) -> dict[str, TaskResult]:
        """What was measured, for the results."""
        found = {}
        for name in self.tested:
            spec, labels = self.bench.specs[name], self.bench.heads[name].labels
            found[name] = TaskResult(
                type=spec.type,
                metric=spec.metric or "",
                n_test=len(self.rows[name].test),
                n_validation=len(self.rows[name].labelled),
                labels=list(labels) if labels else None,
                expert=spec.expert,
                higher_is_better=higher_is_better(spec.metric or ""),
            )
        return found

    def references(self) -> list[ModelResult]:
        """The base on all tasks, and every expert on its own: what merges are measured against."""
        experts = []
        for name, source in self.opened.match.experts.items():
            own = [task for task in self.tested if self.bench.specs[task].expert == name]
            if own:
                scores = self._score(f"expert {name}", source, own)
                self._of_experts.update(scores)
                experts.append(_row(f"expert:{name}", name, "expert", scores, {}))
        if not self.tested:
            return []
        return [self.model("base", "base", "base", self.opened.base), *experts]

    def model(
        self,
        id_: str,
        label: str,
        kind: Literal["base", "merged", "method"],
        source: TensorSource,
        *,
        seconds: float | None = None,
        validation: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> ModelResult:
        """One model on all tasks. `seconds` is what making it took, `validation` its score on held-back examples."""
        scores = self.of[id_] = self._score(label, source, self.tested)
        row = _row(id_, label, kind, scores, self._of_experts)
        return row.model_copy(
            update={
                "seconds": seconds,
                "validation": validation,
                "peak_rss_bytes": peak_bytes(),
                "settings": dict(settings or {}),
            }
        )

    def _score(self, label: str, source: TensorSource, tasks: list[str]) -> dict[str, TaskScore]:
        from supermerge.tasks.evaluate import evaluate_source

        return evaluate_source(self.bench, label, source, {task: self.rows[task].test for task in tasks})


def _row(
    id_: str,
    label: str,
    kind: Literal["base", "expert", "merged", "method"],
    scores: Mapping[str, TaskScore],
    of_experts: Mapping[str, TaskScore],
) -> ModelResult:
    values = [score.value for score in scores.values()]
    ratios = [
        score.value / of_experts[task].value
        for task, score in scores.items()
        if higher_is_better(score.metric) and task in of_experts and of_experts[task].value
    ]
    comparable = len({score.metric for score in scores.values()}) == 1
    return ModelResult(
        id=id_,
        label=label,
        kind=kind,
        scores={
            task: Score(metric=found.metric, value=found.value, low=found.low, high=found.high, n=found.n)
            for task, found in scores.items()
        },
        mean=sum(values) / len(values) if values and comparable else None,
        normalised=sum(ratios) / len(ratios) if ratios and len(ratios) == len(scores) else None,
        worst=min(ratios) if ratios and len(ratios) == len(scores) else None,
    )
