"""The learning curve, with the step that was kept."""

from __future__ import annotations

from supermerge.report.charts.chart import Chart, Rows, Spec, channel, finish, mark, named, tooltip
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


def _curve(learning: Learning, watched: bool, width: int) -> Spec:
    top = max(point.step for point in learning.curve)
    axis = {"grid": False, "tickCount": 6, "tickMinStep": 1, "format": "d", "title": "step"}
    colours = {"domain": [_TRAIN, _HELD_BACK], "range": [colour("faint"), colour("accent")]}
    legend = {"title": None, "orient": "top", "symbolType": "stroke", "offset": 4} if watched else None
    curve = {
        "x": channel("step:Q", scale={"domain": [0, max(top, 1)], "nice": False}, axis=axis),
        "y": channel("loss:Q", scale={"zero": False, "nice": True}, axis={"tickCount": 5, "title": "loss"}),
        "color": channel("series:N", scale=colours, legend=legend),
        "tooltip": tooltip({"step:N": "Step", "series:N": "Examples", "loss:Q": "Loss"}, ".4f"),
    }
    # Points show where the loss was measured, and carry the hover text; on long curves they would blur the line.
    points = {"size": 18, "filled": True, "opacity": 1 if top <= 80 else 0}
    lines = {**named("curve"), **mark("line", curve, strokeWidth=2, strokeJoin="round", point=points)}
    at = {"x": channel("step:Q")}
    rule = {**named("best"), **mark("rule", at, strokeDash=[4, 3], stroke=colour("muted"))}
    on_left = learning.best_step is not None and learning.best_step > 0.75 * top
    beside = {"align": "right", "dx": -6} if on_left else {"align": "left", "dx": 6}
    words = {**at, "y": {"value": 0}, "text": channel("shown:N")}
    text = {**named("best"), **mark("text", words, **beside, dy=6, baseline="top")}
    return finish({"layer": [rule, lines, text], "width": width - 64, "height": 220}, "Loss by learning step")
