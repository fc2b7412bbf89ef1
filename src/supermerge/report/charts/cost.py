"""Time and memory of every phase."""

from __future__ import annotations

from typing import Any

import altair as alt

from supermerge.report import numbers
from supermerge.report.charts.chart import Chart, Rows, finish, label_limit, names, tooltip
from supermerge.report.palette import colour
from supermerge.report.results import Results


def phases(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """Wall-clock seconds and peak resident memory, phase by phase."""
    found = results.cost.phases
    if not found:
        return None
    data: Rows = [
        {
            "phase": phase.name,
            "order": order,
            "seconds": phase.seconds,
            "time": numbers.seconds(phase.seconds),
            "bytes": phase.peak_rss_bytes,
            "memory": None if phase.peak_rss_bytes is None else numbers.size(phase.peak_rss_bytes),
        }
        for order, phase in enumerate(found)
    ]
    measured = any(phase.peak_rss_bytes is not None for phase in found)
    title = "Time and memory by phase" if measured else "Time by phase"
    caption = "Wall-clock time and the largest resident memory of each phase." if measured else "Wall-clock time."
    return Chart(
        "cost", title, caption, {width: _phases(len(found), measured, width) for width in widths}, {"phases": data}
    )


def _phases(num_phases: int, measured: bool, width: int) -> dict[str, Any]:
    limit = label_limit(width)
    beside = measured and width >= 500
    room = (width - limit - 2 * 64 - 24) // 2 if beside else width - limit - 76
    panels = [_bars("seconds", "time", "time", True, room, num_phases, limit)]
    if measured:
        panels.append(_bars("bytes", "memory", "peak memory", not beside, room, num_phases, limit))
    stacked = alt.hconcat(*panels, spacing=24) if beside else alt.vconcat(*panels, spacing=18)
    return finish(stacked, "Time and peak memory of every phase")


def _bars(
    field: str, text: str, title: str, labelled: bool, width: int, num_phases: int, limit: int
) -> alt.LayerChart | alt.FacetChart:
    y = names("phase:N", "order", limit)
    chart = alt.Chart(alt.NamedData(name="phases")).encode(
        x=alt.X(f"{field}:Q", axis=None), y=y if labelled else y.axis(None)
    )
    bars = chart.mark_bar(height=10, fill=colour("faint")).encode(
        tooltip=tooltip({"phase:N": "Phase", "time:N": "Time", "memory:N": "Peak memory"})
    )
    values = chart.mark_text(align="left", dx=6).encode(text=f"{text}:N")
    heading = alt.TitleParams(
        title, anchor="start", frame="group", fontSize=11, fontWeight="normal", color=colour("muted"), offset=6
    )
    return alt.layer(bars, values, width=width, height=24 * num_phases, title=heading)
