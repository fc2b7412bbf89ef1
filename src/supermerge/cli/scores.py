"""Tables of scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from supermerge.cli.console import console, plain_table
from supermerge.report.numbers import score as number
from supermerge.report.numbers import seconds
from supermerge.report.results import Results
from supermerge.report.summary import best_merged, score_rows

if TYPE_CHECKING:
    from supermerge.tasks.score import Score


def print_scores(model: str, scores: Mapping[str, Score]) -> None:
    """One model: a line per task with its metric, value and 95 % interval."""
    table = plain_table("Task", "Metric", "Score", "95 % interval", "Examples", numbers=("Score", "Examples"))
    for task, found in scores.items():
        interval = f"{number(found.low)} to {number(found.high)}"
        table.add_row(Text(task, "cyan"), found.metric, number(found.value), Text(interval, "dim"), f"{found.n:,}")
    out = console()
    out.print(Text(model, "bold"))
    out.print(table)


def scores_to_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    """The same numbers, for `--json`."""
    return {
        task: {"metric": found.metric, "value": found.value, "low": found.low, "high": found.high, "n": found.n}
        for task, found in scores.items()
    }


def print_results_table(results: Results) -> None:
    """Every model of a run against every task; the best merge of each task is bold."""
    rows = score_rows(results)
    if not rows:
        return
    best = {task: best_merged(results, task) for task in results.tasks}
    with_means = any(row.mean is not None for row in rows)
    compared = any(row.rank is not None for row in rows)
    headings = [*results.tasks, *(["mean", "of experts"] if with_means else [])]
    headings += ["rank", "time"] if compared else []
    table = plain_table("", *headings, numbers=tuple(headings))
    for row in rows:
        style = {"merged": "bold cyan", "expert": "dim"}.get(row.kind, "")
        cells: list[str | Text] = [_cell(row.scores.get(task), row.id in best[task]) for task in results.tasks]
        if with_means:
            cells.append("" if row.mean is None else number(row.mean))
            cells.append("" if row.normalised is None else f"{row.normalised:.1%}")
        if compared:
            cells.append("" if row.rank is None else f"{row.rank:.1f}")
            cells.append("" if row.seconds is None else seconds(row.seconds))
        table.add_row(row.label, *cells, style=style)
    out = console()
    out.print(table)
    metrics = sorted({task.metric for task in results.tasks.values()})
    out.print(Text(f"{', '.join(metrics)} on the test examples; ± is half of the 95 % interval", "dim"))


def _cell(found: Any, is_best: bool) -> Text:
    if found is None:
        return Text("–", "dim")
    half = (found.high - found.low) / 2
    return Text.assemble((number(found.value), "bold" if is_best else ""), (f" ±{number(half).lstrip('0')}", "dim"))
