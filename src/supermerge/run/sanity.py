"""Whether the merge is better than doing nothing: its validation score against the base's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from supermerge.checkpoint import open_expert
from supermerge.events import emit, muted, phase
from supermerge.run.prepared import Prepared

if TYPE_CHECKING:
    from supermerge.tasks.score import Score


def worse_than_base(ready: Prepared, directory: Path) -> str | None:
    """Warn, and say so in one sentence, where the merge in `directory` scores below the base on the validation rows.

    On average where all tasks have the same metric; else where some task is worse and none is better. The labelled
    rows are those that were learned from: a merge that is worse even there is worse.
    """
    rows = {task: rows.labelled for task, rows in ready.rows.items() if rows.labelled}
    if ready.bench is None or not rows:
        return None
    from supermerge.tasks.evaluate import evaluate_source

    with phase("validating"), muted(), ExitStack() as stack:
        merged = open_expert(directory, ready.opened.base, stack)
        before = evaluate_source(ready.bench, "base", ready.opened.base, rows)
        after = evaluate_source(ready.bench, "merged", merged, rows)
    worse = lost_to(before, after)
    if not worse:
        return None
    listed = ", ".join(f"{t} {after[t].value:.3f} against {before[t].value:.3f}" for t in worse)
    found = f"The merge is worse than the base on the validation examples: {listed}."
    emit("warning", message=found)
    return found


def lost_to(before: Mapping[str, Score], after: Mapping[str, Score]) -> list[str]:
    """The tasks at which `after` is worse than `before`, if it is worse as a whole; else none."""
    gains = {
        task: (after[task].value - score.value) * (1 if score.higher_is_better else -1)
        for task, score in before.items()
    }
    worse = [task for task, gain in gains.items() if gain < 0]
    one_metric = len({score.metric for score in before.values()}) == 1
    as_a_whole = sum(gains.values()) < 0 if one_metric else len(worse) > 0 and max(gains.values()) <= 0
    return worse if as_a_whole else []
