"""Accuracy over the number of labelled examples, as an SVG beside the document."""

from __future__ import annotations

import statistics
from pathlib import Path

import altair as alt

from suites.cells import budgets
from suites.document import DOCUMENT
from suites.rows import BY_NAME
from suites.table import lines, normalised


def draw(suite: str) -> Path | None:
    """Write the chart of every merge that has results for several budgets; None where none has."""
    points = []
    for budget in budgets(suite):
        found = lines(suite, budget)
        experts = next(line for line in found if line.kind == "expert")
        points += [
            {
                "method": line.method,
                "labels": budget,
                "of experts, %": round(100 * statistics.mean(normalised(line, experts).values()), 2),
            }
            for line in found
            if line.kind == "static" and (line.selected or BY_NAME[line.method].labels)
        ]
    several = {point["method"] for point in points if point["labels"] != 32}
    points = [point for point in points if point["method"] in several]
    if not points:
        return None
    place = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("labels:Q", scale=alt.Scale(type="log", base=2), title="labelled examples per task"),
        y=alt.Y("of experts, %:Q", scale=alt.Scale(zero=False), title="accuracy, % of the experts'"),
        color=alt.Color("method:N", legend=alt.Legend(orient="right")),
        shape=alt.Shape("method:N"),
    )
    target = DOCUMENT.with_name(f"suite-{suite}-budgets.svg")
    chart = place.mark_line() + place.mark_point(filled=True, size=60)
    chart.properties(width=480, height=320, background="white").save(str(target))
    return target
