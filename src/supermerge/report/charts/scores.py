"""Scores: one panel per task with 95 % intervals, and the mean of every method."""

from __future__ import annotations

import altair as alt

from supermerge.report import numbers
from supermerge.report.charts.chart import Chart, Rows, columns, finish, label_limit
from supermerge.report.palette import colour
from supermerge.report.results import Results
from supermerge.report.summary import direction, score_rows

_KINDS = ["base", "expert", "merged", "method"]
_FILLS = alt.Scale(domain=_KINDS, range=[colour("paper"), colour("ink"), colour("accent"), colour("faint")])
_STROKES = alt.Scale(domain=_KINDS, range=[colour("muted"), colour("ink"), colour("accent"), colour("faint")])
_SHAPES = alt.Scale(domain=_KINDS, range=["circle", "diamond", "circle", "square"])
_SIZES = alt.Scale(domain=_KINDS, range=[50, 62, 95, 42])
_WEIGHT = alt.ExprRef("datum.kind === 'merged' ? 600 : 400")


def task_scores(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """Per task: base, expert, merged and other methods as points with their 95 % intervals."""
    rows = score_rows(results)
    tasks = [task for task in results.tasks if any(task in row.scores for row in rows)]
    if not tasks:
        return None
    data: Rows = [
        {
            "task": task, "task_order": tasks.index(task), "model": row.label, "order": order, "kind": row.kind,
            "value": row.scores[task].value, "low": row.scores[task].low, "high": row.scores[task].high,
            "shown": numbers.score(row.scores[task].value),
            "interval": f"{numbers.score(row.scores[task].low)} to {numbers.score(row.scores[task].high)}",
            "metric": results.tasks[task].metric,
        }
        for task in tasks
        for order, row in enumerate(rows)
        if task in row.scores
    ]  # fmt: skip
    lower = [task for task in tasks if not results.tasks[task].higher_is_better]
    caption = "Points are test scores, lines their 95 % intervals."
    if lower:
        caption += " Lower is better for tasks measured by " + ", ".join(
            dict.fromkeys(results.tasks[task].metric for task in lower)
        )
        caption += "."
    return Chart(
        "scores", "Scores by task", caption, {width: _task_panels(results, tasks, len(rows), width) for width in widths},
        {"scores": data},
    )  # fmt: skip


def method_means(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The mean score of every method, best first, as distance from the base."""
    sign = direction(results)
    rows = [row for row in score_rows(results) if row.mean is not None]
    if sign is None or len(rows) < 2:
        return None
    rows.sort(key=lambda row: -sign * (row.mean or 0.0))
    base = next((row.mean for row in rows if row.kind == "base"), rows[-1].mean)
    data: Rows = [
        {"model": row.label, "order": order, "kind": row.kind, "mean": row.mean, "start": base,
         "shown": numbers.score(row.mean or 0.0)}
        for order, row in enumerate(rows)
    ]  # fmt: skip
    better = "higher" if sign == 1 else "lower"
    return Chart(
        "means", "Mean score of every method",
        f"Mean over all tasks ({better} is better); the line starts at the base. The experts are k models, each on its own task.",
        {width: _means(len(rows), width) for width in widths}, {"means": data},
    )  # fmt: skip


def _task_panels(results: Results, tasks: list[str], num_rows: int, width: int) -> dict[str, object]:
    limit = label_limit(width)
    across = columns(len(tasks), width - limit, 150)
    panel = (width - limit - 16 - 18 * (across - 1)) // across
    y = alt.Y("model:N", sort=alt.EncodingSortField("order", op="min", order="ascending"), title=None)
    y = y.axis(labelLimit=limit - 6)
    x_axis = alt.Axis(tickCount=4, title=None, format="~g", labelFlush=True)
    tooltip = [
        alt.Tooltip("task:N", title="Task"), alt.Tooltip("model:N", title="Model"), alt.Tooltip("metric:N", title="Metric"),
        alt.Tooltip("shown:N", title="Score"), alt.Tooltip("interval:N", title="95 % interval"),
    ]  # fmt: skip
    chart = alt.Chart(alt.NamedData(name="scores"))
    stroke = alt.Stroke("kind:N", scale=_STROKES, legend=None)
    lines = chart.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", scale=alt.Scale(zero=False, nice=True), axis=x_axis), x2="high:Q", y=y, stroke=stroke
    )
    points = chart.mark_point(strokeWidth=1.75, opacity=1).encode(
        x=alt.X("value:Q", axis=x_axis), y=y, stroke=stroke, fill=alt.Fill("kind:N", scale=_FILLS, legend=None),
        shape=alt.Shape("kind:N", scale=_SHAPES, legend=None), size=alt.Size("kind:N", scale=_SIZES, legend=None),
        tooltip=tooltip,
    )  # fmt: skip
    facet = alt.Facet(
        "task:N", sort=alt.EncodingSortField("task_order", op="min"), header=alt.Header(title=None, labelLimit=panel)
    )
    layered = alt.layer(lines, points).properties(width=panel, height=num_rows * 20).facet(facet, columns=across)
    if len({results.tasks[task].metric for task in tasks}) > 1:
        layered = layered.resolve_scale(x="independent")
    return finish(layered, "Test scores of every model on every task with 95 % intervals")


def _means(num_rows: int, width: int) -> dict[str, object]:
    limit = label_limit(width)
    chart = alt.Chart(alt.NamedData(name="means"))
    y = alt.Y("model:N", sort=alt.EncodingSortField("order", op="min"), title=None, axis=alt.Axis(labelLimit=limit - 6))
    x = alt.X("mean:Q", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=6, title=None, format="~g"))
    stroke = alt.Stroke("kind:N", scale=_STROKES, legend=None)
    lines = chart.mark_rule(strokeWidth=2).encode(x=x, x2="start:Q", y=y, stroke=stroke)
    points = chart.mark_point(strokeWidth=1.75, opacity=1).encode(
        x=x, y=y, stroke=stroke, fill=alt.Fill("kind:N", scale=_FILLS, legend=None),
        shape=alt.Shape("kind:N", scale=_SHAPES, legend=None), size=alt.Size("kind:N", scale=_SIZES, legend=None),
        tooltip=[alt.Tooltip("model:N", title="Model"), alt.Tooltip("shown:N", title="Mean score")],
    )  # fmt: skip
    text = chart.mark_text(align="left", dx=12, fontWeight=_WEIGHT).encode(x=x, y=y, text="shown:N")
    return finish(
        alt.layer(lines, points, text).properties(width=width - limit - 56, height=num_rows * 24),
        "Mean score of every method, best first",
    )
