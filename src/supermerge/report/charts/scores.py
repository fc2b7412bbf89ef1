"""Scores: one panel per task with 95 % intervals, and the mean of every method."""

from __future__ import annotations

from typing import Any

import altair as alt

from supermerge.report import numbers
from supermerge.report.charts.chart import Chart, Rows, columns, finish, in_order, label_limit, names, tooltip
from supermerge.report.palette import colour
from supermerge.report.results import Results
from supermerge.report.summary import direction, score_rows

_KINDS = ["base", "expert", "merged", "method"]
_FILLS = alt.Scale(domain=_KINDS, range=[colour("paper"), colour("ink"), colour("accent"), colour("faint")])
_STROKES = alt.Scale(domain=_KINDS, range=[colour("muted"), colour("ink"), colour("accent"), colour("faint")])
_SHAPES = alt.Scale(domain=_KINDS, range=["circle", "diamond", "circle", "square"])
_SIZES = alt.Scale(domain=_KINDS, range=[50, 58, 80, 36])
_TIPS = {
    "scores": {
        "task:N": "Task",
        "model:N": "Model",
        "metric:N": "Metric",
        "shown:N": "Score",
        "interval:N": "95 % interval",
    },
    "means": {"model:N": "Model", "shown:N": "Mean score"},
}


def task_scores(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """Per task: base, expert, merged and other methods as points with their 95 % intervals."""
    rows = score_rows(results)
    tasks = [task for task in results.tasks if any(task in row.scores for row in rows)]
    if not tasks:
        return None
    data: Rows = [
        {
            "task": task,
            "task_order": task_order,
            "metric": results.tasks[task].metric,
            "model": row.label,
            "order": order,
            "kind": row.kind,
            "value": row.scores[task].value,
            "low": row.scores[task].low,
            "high": row.scores[task].high,
            "shown": numbers.score(row.scores[task].value),
            "interval": f"{numbers.score(row.scores[task].low)} to {numbers.score(row.scores[task].high)}",
        }
        for task_order, task in enumerate(tasks)
        for order, row in enumerate(rows)
        if task in row.scores
    ]
    caption = "Points are test scores, lines their 95 % intervals; every task has its own scale."
    falling = dict.fromkeys(results.tasks[task].metric for task in tasks if not results.tasks[task].higher_is_better)
    if falling:
        caption += f" Lower is better for {', '.join(falling)}."
    specs = {width: _task_panels(len(tasks), len(rows), width) for width in widths}
    return Chart("scores", "Scores by task", caption, specs, {"scores": data})


def method_means(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The mean score of every method, best first, as distance from the base."""
    sign = direction(results)
    rows = [(row.mean, row) for row in score_rows(results) if row.mean is not None]
    if sign is None or len(rows) < 2:
        return None
    rows.sort(key=lambda pair: -sign * pair[0])
    base = next((mean for mean, row in rows if row.kind == "base"), rows[-1][0])
    data: Rows = [
        {
            "model": row.label,
            "order": order,
            "kind": row.kind,
            "mean": mean,
            "start": base,
            "shown": numbers.score(mean),
        }
        for order, (mean, row) in enumerate(rows)
    ]
    caption = f"Mean over all tasks ({'higher' if sign == 1 else 'lower'} is better); lines start at the base."
    num_experts = sum(model.kind == "expert" for model in results.models)
    if num_experts > 1:
        caption += f" The experts are {num_experts} models, each on its own task."
    specs = {width: _means(len(rows), width) for width in widths}
    return Chart("means", "Mean score of every method", caption, specs, {"means": data})


def _task_panels(num_tasks: int, num_rows: int, width: int) -> dict[str, Any]:
    limit = label_limit(width)
    across = columns(num_tasks, width - limit, 150)
    panel = (width - limit - 16 - 18 * (across - 1)) // across
    lines, points = _marks("scores", "low", "value", "high", limit, alt.Axis(tickCount=4, title=None, format="~g"))
    facet = alt.Facet("task:N", sort=in_order("task_order"), header=alt.Header(title=None, labelLimit=panel))
    panels = alt.layer(lines, points, width=panel, height=num_rows * 20).facet(facet, columns=across)
    return finish(panels.resolve_scale(x="independent"), "Test scores of all models by task with 95 % intervals")


def _means(num_rows: int, width: int) -> dict[str, Any]:
    limit = label_limit(width)
    lines, points = _marks("means", "start", "mean", "mean", limit, alt.Axis(tickCount=6, title=None, format="~g"))
    weight = alt.ExprRef("datum.kind === 'merged' ? 600 : 400")
    words = alt.Chart(alt.NamedData(name="means")).mark_text(align="left", dx=12, fontWeight=weight)
    text = words.encode(x="mean:Q", y=names("model:N", "order", limit), text="shown:N")
    drawing = alt.layer(lines, points, text, width=width - limit - 56, height=num_rows * 24)
    return finish(drawing, "Mean score of every method, best first")


def _marks(data: str, start: str, value: str, end: str, limit: int, axis: alt.Axis) -> tuple[alt.Chart, alt.Chart]:
    """A line from `start` to `end` and a point at `value` for every model, in the look of its kind."""
    y = names("model:N", "order", limit)
    chart = alt.Chart(alt.NamedData(name=data)).encode(y=y, stroke=alt.Stroke("kind:N", scale=_STROKES, legend=None))
    scale = alt.Scale(zero=False, nice=True)
    lines = chart.mark_rule(strokeWidth=2).encode(x=alt.X(f"{start}:Q", scale=scale, axis=axis), x2=f"{end}:Q")
    points = chart.mark_point(strokeWidth=1.75, opacity=1).encode(
        x=alt.X(f"{value}:Q", scale=scale, axis=axis),
        fill=alt.Fill("kind:N", scale=_FILLS, legend=None),
        shape=alt.Shape("kind:N", scale=_SHAPES, legend=None),
        size=alt.Size("kind:N", sort=_KINDS, scale=_SIZES, legend=None),
        tooltip=tooltip(_TIPS[data]),
    )
    return lines, points
