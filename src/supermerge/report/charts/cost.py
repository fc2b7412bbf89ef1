"""Time and memory of every phase."""

from __future__ import annotations

from supermerge.report import numbers
from supermerge.report.charts.chart import Chart, Rows, Spec, channel, finish, label_limit, mark, named, names, tooltip
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


def _phases(num_phases: int, measured: bool, width: int) -> Spec:
    limit = label_limit(width)
    beside = measured and width >= 500
    room = (width - limit - 2 * 64 - 24) // 2 if beside else width - limit - 76
    panels = [_bars("seconds", "time", "time", True, room, num_phases, limit)]
    if measured:
        panels.append(_bars("bytes", "memory", "peak memory", not beside, room, num_phases, limit))
    stacked = {"hconcat": panels, "spacing": 24} if beside else {"vconcat": panels, "spacing": 18}
    return finish(stacked, "Time and peak memory of every phase")


def _bars(field: str, text: str, title: str, labelled: bool, width: int, num_phases: int, limit: int) -> Spec:
    y = names("phase:N", "order", limit)
    place = {"x": channel(f"{field}:Q", axis=None), "y": y if labelled else {**y, "axis": None}}
    tip = tooltip({"phase:N": "Phase", "time:N": "Time", "memory:N": "Peak memory"})
    bars = mark("bar", {**place, "tooltip": tip}, height=10, fill=colour("faint"))
    values = mark("text", {**place, "text": channel(f"{text}:N")}, align="left", dx=6)
    plain = {"fontSize": 11, "fontWeight": "normal", "color": colour("muted"), "offset": 6}
    heading = {"text": title, "anchor": "start", "frame": "group", **plain}
    size = {"width": width, "height": 24 * num_phases}
    return {**named("phases"), "layer": [bars, values], "title": heading, **size}
