"""Cost against accuracy: one point per method, as an SVG beside the document."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import altair as alt

from suites.document import DOCUMENT
from suites.rows import BY_NAME
from suites.table import Line, normalised


def draw(suite: str, found: Sequence[Line]) -> Path:
    """Write the chart of everything that merges, and the controls; the place where it is."""
    experts = next(line for line in found if line.kind == "expert")
    points = [
        {
            "method": line.method,
            "seconds": max(line.seconds, 0.5),
            "of experts, %": round(100 * statistics.mean(normalised(line, experts).values()), 2),
            "learned from": _data(line),
        }
        for line in found
        if line.kind in ("static", "control") and not line.selected
    ]
    low = min(point["of experts, %"] for point in points)
    place = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("seconds:Q", scale=alt.Scale(type="log", domainMax=3000), title="seconds on one core, tuning included"),
        y=alt.Y(
            "of experts, %:Q", scale=alt.Scale(domain=[10 * (low // 10), 100]), title="accuracy, % of the experts'"
        ),
    )
    dots = place.mark_point(filled=True, size=70).encode(
        color=alt.Color("learned from:N", title="data used", legend=alt.Legend(orient="bottom")),
        shape=alt.Shape("learned from:N"),
    )
    names = place.mark_text(align="left", dx=7, fontSize=10).encode(text="method:N")
    target = DOCUMENT.with_name(f"suite-{suite}.svg")
    (dots + names).properties(width=640, height=400, background="white").save(str(target))
    return target


def _data(line: Line) -> str:
    labels = BY_NAME[line.method].labels
    if line.unlabelled:
        return "labels and unlabelled inputs" if labels else "unlabelled inputs"
    return "labels" if labels else "none"
