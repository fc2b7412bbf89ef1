"""Accuracy over the number of labelled examples of one draw, as an SVG beside the document."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import altair as alt

from suites.cells import budgets
from suites.document import DOCUMENT
from suites.rows import BY_NAME
from suites.table import lines, normalised

DRAW = {"text8": 1, "vision8": 0}
"""The first eight examples of text8's draw 0 are of one class in one task, which recipes refuse."""
REFERENCE = "supermerge_distill_iso_c"
"""Learns from unlabelled inputs alone: a level line to see the others against."""


def draw(suite: str) -> Path | None:
    """Write the chart of every merge that has results for several budgets; None where none has."""
    found = points(suite)
    if not found:
        return None
    # The legend in the order of the lines' ends, best above.
    last = {point["method"]: point["of experts, %"] for point in sorted(found, key=lambda point: point["labels"])}
    order = sorted(last, key=lambda method: -last[method])
    place = alt.Chart(alt.Data(values=found)).encode(
        x=alt.X(
            "labels:Q",
            scale=alt.Scale(type="log", base=2),
            axis=alt.Axis(values=sorted({point["labels"] for point in found})),
            title="labelled examples per task",
        ),
        y=alt.Y("of experts, %:Q", scale=alt.Scale(zero=False), title="accuracy, % of the experts'"),
        color=alt.Color("method:N", sort=order, legend=alt.Legend(orient="right", title=None)),
        shape=alt.Shape("method:N", sort=order, legend=None),
        strokeDash=alt.condition(f"datum.method == '{REFERENCE}'", alt.value([5, 4]), alt.value([1, 0])),
    )
    target = DOCUMENT.with_name(f"suite-{suite}-budgets.svg")
    chart = place.mark_line() + place.mark_point(filled=True, size=60)
    chart.properties(width=480, height=340, background="white").save(str(target))
    return target


def points(suite: str) -> list[dict[str, Any]]:
    """Method, labels and accuracy of every merge that has results for several budgets, and of the reference."""
    found = []
    for budget in budgets(suite, DRAW[suite]):
        of_budget = lines(suite, budget, [DRAW[suite]])
        experts = next(line for line in of_budget if line.kind == "expert")
        found += [
            {
                "method": line.method,
                "labels": budget,
                "of experts, %": round(100 * statistics.mean(normalised(line, experts).values()), 2),
            }
            for line in of_budget
            if line.kind == "static" and not line.selected and (BY_NAME[line.method].labels or line.method == REFERENCE)
        ]
    several = {point["method"] for point in found if point["labels"] != 32}
    return [point for point in found if point["method"] in several]
