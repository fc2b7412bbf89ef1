"""Cost against accuracy: one point per method, as an SVG beside the document."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import altair as alt

from suites.document import DOCUMENT
from suites.labels import placed
from suites.rows import BY_NAME
from suites.table import Line, normalised

_WIDTH, _HEIGHT = 720, 520
_SECONDS = (0.5, 3000)
_TOP = 100.5
_ACCURACY = "of experts, %"


def draw(suite: str, found: Sequence[Line]) -> Path:
    """Write the chart of everything that merges; the place where it is."""
    experts = next(line for line in found if line.kind == "expert")
    merges = [line for line in found if line.kind == "static" and not line.selected]
    points = [_point(line, experts) for line in merges]
    low = 5 * (min(point[_ACCURACY] for point in points) // 5)
    points = named(points, low)
    x = alt.X(
        "seconds:Q",
        scale=alt.Scale(type="log", domain=list(_SECONDS), nice=False),
        axis=alt.Axis(values=[1, 3, 10, 30, 100, 300, 1000, 3000], format="d"),
        title="seconds on one core, tuning included",
    )
    scale = alt.Scale(domain=[low, _TOP], nice=False)
    chart = alt.Chart(alt.Data(values=points))
    dots = chart.mark_point(filled=True, size=70).encode(
        x=x,
        y=alt.Y(f"{_ACCURACY}:Q", scale=scale, title="accuracy, % of the experts'"),
        color=alt.Color("learned from:N", title="data used", legend=alt.Legend(orient="bottom")),
        shape=alt.Shape("learned from:N"),
    )
    names = [
        chart.transform_filter(f"datum.left == {str(left).lower()}")
        .mark_text(align="right" if left else "left", dx=-7 if left else 7, fontSize=10)
        .encode(x=x, y=alt.Y("name at:Q", scale=scale), text="method:N")
        for left in (False, True)
    ]
    target = DOCUMENT.with_name(f"suite-{suite}.svg")
    alt.layer(dots, *names).properties(width=_WIDTH, height=_HEIGHT, background="white").save(str(target))
    return target


def _point(line: Line, experts: Line) -> dict[str, Any]:
    return {
        "method": line.method,
        "seconds": max(line.seconds, _SECONDS[0]),
        _ACCURACY: round(100 * statistics.mean(normalised(line, experts).values()), 2),
        "learned from": _data(line),
    }


def named(points: Sequence[dict[str, Any]], low: float) -> list[dict[str, Any]]:
    """The points with the places of their names: `name at` on the axis of accuracy, and which side."""
    first, last = map(log, _SECONDS)
    per_percent = _HEIGHT / (_TOP - low)
    at = [
        (_WIDTH * (log(point["seconds"]) - first) / (last - first), per_percent * (_TOP - point[_ACCURACY]))
        for point in points
    ]
    labels = placed([point["method"] for point in points], at, _WIDTH)
    return [
        {**point, "name at": _TOP - label.y / per_percent, "left": label.left}
        for point, label in zip(points, labels, strict=True)
    ]


def _data(line: Line) -> str:
    labels = BY_NAME[line.method].labels
    if line.unlabelled:
        return "labels and unlabelled inputs" if labels else "unlabelled inputs"
    return "labels" if labels else "none"
