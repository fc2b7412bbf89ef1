"""The learning curve, with the step that was kept."""

from __future__ import annotations

from typing import Any

import altair as alt

from supermerge.report.charts.chart import Chart, Rows, finish, tooltip
from supermerge.report.palette import colour
from supermerge.report.results import Learning, Results

_TRAIN, _HELD_BACK = "training", "held back"


def curve(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """Training and held-back loss by step."""
    learning = results.learning
    if learning is None:
        return None
    data: Rows = [
        {"step": point.step, "series": series, "loss": round(loss, 6)}
        for point in learning.curve
        for series, loss in ((_TRAIN, point.loss), (_HELD_BACK, point.held_back))
        if loss is not None
    ]
    if len(data) < 2:
        return None
    watched = any(row["series"] == _HELD_BACK for row in data)
    kept = learning.best_step
    best: Rows = [] if kept is None else [{"step": kept, "shown": f"kept: {kept}"}]
    caption = "Loss on the batches learned from"
    caption += ", and on the examples held back from learning." if watched else "."
    caption += " The dashed line marks the step whose coefficients were kept." if best else ""
    specs = {width: _curve(learning, watched, width) for width in widths}
    return Chart("learning", "Learning curve", caption, specs, {"curve": data, "best": best})


def _curve(learning: Learning, watched: bool, width: int) -> dict[str, Any]:
    top = max(point.step for point in learning.curve)
    steps = alt.Scale(domain=[0, max(top, 1)], nice=False)
    x = alt.X("step:Q", scale=steps, axis=alt.Axis(grid=False, tickCount=6, tickMinStep=1, format="d", title="step"))
    scale = alt.Scale(domain=[_TRAIN, _HELD_BACK], range=[colour("faint"), colour("accent")])
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", offset=4) if watched else None
    # Points show where the loss was measured, and carry the hover text; on long curves they would blur the line.
    points = alt.OverlayMarkDef(size=18, filled=True, opacity=1 if top <= 80 else 0)
    lines = (
        alt.Chart(alt.NamedData(name="curve"))
        .mark_line(strokeWidth=2, strokeJoin="round", point=points)
        .encode(
            x=x,
            y=alt.Y("loss:Q", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=5, title="loss")),
            color=alt.Color("series:N", scale=scale, legend=legend),
            tooltip=tooltip({"step:N": "Step", "series:N": "Examples", "loss:Q": "Loss"}, ".4f"),
        )
    )
    best = alt.Chart(alt.NamedData(name="best"))
    rule = best.mark_rule(strokeDash=[4, 3], stroke=colour("muted")).encode(x="step:Q")
    on_left = learning.best_step is not None and learning.best_step > 0.75 * top
    text = best.mark_text(align="right" if on_left else "left", dx=-6 if on_left else 6, dy=6, baseline="top").encode(
        x="step:Q", y=alt.value(0), text="shown:N"
    )
    drawing = alt.layer(rule, lines, text, width=width - 64, height=220)
    return finish(drawing, "Loss by learning step")
