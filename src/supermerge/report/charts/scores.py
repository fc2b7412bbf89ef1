"""Scores: one panel per task with 95 % intervals, and the mean of every method."""

from __future__ import annotations

from typing import Any

from supermerge.report import numbers
from supermerge.report.charts.chart import (
    Chart,
    Rows,
    Spec,
    channel,
    columns,
    finish,
    in_order,
    label_limit,
    mark,
    named,
    names,
    tooltip,
)
from supermerge.report.palette import colour
from supermerge.report.results import Results
from supermerge.report.summary import direction, score_rows

_KINDS = ["base", "expert", "merged", "method"]
_FILLS = {"domain": _KINDS, "range": [colour("paper"), colour("ink"), colour("accent"), colour("faint")]}
_STROKES = {"domain": _KINDS, "range": [colour("muted"), colour("ink"), colour("accent"), colour("faint")]}
_SHAPES = {"domain": _KINDS, "range": ["circle", "diamond", "circle", "square"]}
_SIZES = {"domain": _KINDS, "range": [50, 58, 80, 36]}
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


def _task_panels(num_tasks: int, num_rows: int, width: int) -> Spec:
    limit = label_limit(width)
    across = columns(num_tasks, width - limit, 150)
    panel = (width - limit - 16 - 18 * (across - 1)) // across
    layers = _marks("scores", "low", "value", "high", limit, {"tickCount": 4, "title": None, "format": "~g"})
    header = {"title": None, "labelLimit": panel}
    return finish(
        {
            **named("scores"),
            "facet": channel("task:N", sort=in_order("task_order"), header=header),
            "columns": across,
            "spec": {"layer": layers, "width": panel, "height": num_rows * 20},
            "resolve": {"scale": {"x": "independent"}},
        },
        "Test scores of all models by task with 95 % intervals",
    )


def _means(num_rows: int, width: int) -> Spec:
    limit = label_limit(width)
    layers = _marks("means", "start", "mean", "mean", limit, {"tickCount": 6, "title": None, "format": "~g"})
    place = {"x": channel("mean:Q"), "y": names("model:N", "order", limit)}
    weight = {"expr": "datum.kind === 'merged' ? 600 : 400"}
    layers.append(mark("text", {**place, "text": channel("shown:N")}, align="left", dx=12, fontWeight=weight))
    size = {"width": width - limit - 56, "height": num_rows * 24}
    return finish({**named("means"), "layer": layers, **size}, "Mean score of every method, best first")


def _marks(data: str, start: str, value: str, end: str, limit: int, axis: dict[str, Any]) -> list[Spec]:
    """A line from `start` to `end` and a point at `value` for every model, in the look of its kind."""
    place = {"y": names("model:N", "order", limit), "stroke": channel("kind:N", scale=_STROKES, legend=None)}
    along = {"scale": {"zero": False, "nice": True}, "axis": axis}
    line = {**place, "x": channel(f"{start}:Q", **along), "x2": {"field": end}}
    point = {
        **place,
        "x": channel(f"{value}:Q", **along),
        "fill": channel("kind:N", scale=_FILLS, legend=None),
        "shape": channel("kind:N", scale=_SHAPES, legend=None),
        "size": channel("kind:N", sort=_KINDS, scale=_SIZES, legend=None),
        "tooltip": tooltip(_TIPS[data]),
    }
    return [mark("rule", line, strokeWidth=2), mark("point", point, strokeWidth=1.75, opacity=1)]
