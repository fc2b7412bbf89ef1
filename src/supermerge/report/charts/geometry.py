"""Task vectors: how long they are and how alike they point."""

from __future__ import annotations

from supermerge.report.charts.chart import (
    DIVERGING,
    Chart,
    Rows,
    Spec,
    channel,
    extent,
    finish,
    in_order,
    label_limit,
    mark,
    named,
    names,
    tooltip,
    values_on,
)
from supermerge.report.palette import colour
from supermerge.report.results import Results


def norms(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The length of each task vector, relative to the base."""
    geometry = results.geometry
    if geometry is None or not geometry.experts:
        return None
    data: Rows = [
        {"expert": expert, "order": order, "norm": norm, "relative": relative, "shown": f"{relative:.2%} ({norm:.3g})"}
        for order, (expert, norm, relative) in enumerate(
            zip(geometry.experts, geometry.norms, geometry.relative_norms, strict=True)
        )
    ]
    caption = (
        "How far each expert moved: the norm of its task vector as a share of the base’s, and the norm in brackets."
    )
    specs = {width: _norms(len(data), width) for width in widths}
    return Chart("norms", "Size of the task vectors", caption, specs, {"norms": data})


def cosines(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The cosine between every two task vectors."""
    geometry = results.geometry
    if geometry is None or len(geometry.experts) < 2:
        return None
    data: Rows = [
        {"first": first, "second": second, "first_order": i, "second_order": j, "cosine": geometry.cosines[i][j]}
        for i, first in enumerate(geometry.experts)
        for j, second in enumerate(geometry.experts)
        if i != j
    ]
    # Cosines have a scale of their own: 0.02 must not be as dark as 0.9.
    half = max(0.5, extent([row["cosine"] for row in data]))
    caption = (
        "Cosine of every two task vectors: near 0 they point in unrelated directions, below 0 they oppose each other."
    )
    specs = {width: _cosines(len(geometry.experts), half, width) for width in widths}
    return Chart("cosines", "Angles between the task vectors", caption, specs, {"cosines": data})


def _norms(num_experts: int, width: int) -> Spec:
    limit = label_limit(width)
    place = {
        "x": channel("relative:Q", axis={"format": "~%", "tickCount": 5, "title": None}),
        "y": names("expert:N", "order", limit),
    }
    tip = tooltip({"expert:N": "Expert", "shown:N": "Of the base (norm)"})
    bars = mark("bar", {**place, "tooltip": tip}, height=10, fill=colour("faint"))
    text = mark("text", {**place, "text": channel("shown:N")}, align="left", dx=6)
    size = {"width": width - limit - 96, "height": 24 * num_experts}
    return finish(
        {**named("norms"), "layer": [bars, text], **size}, "Norm of every expert's task vector relative to the base"
    )


def _cosines(num_experts: int, half: float, width: int) -> Spec:
    limit = label_limit(width)
    cell = min(56, max(8, (width - limit - 14) // num_experts))
    axis = {"domain": False, "ticks": False, "labelAngle": -45, "labelLimit": 90}
    place = {
        "x": channel("second:N", sort=in_order("second_order"), title=None, axis=axis),
        "y": names("first:N", "first_order", limit),
    }
    scale = {"type": "quantize", "domain": [-half, half], "range": DIVERGING}
    fill = channel("cosine:Q", scale=scale, legend=None)
    tip = tooltip({"first:N": "Expert", "second:N": "and", "cosine:Q": "Cosine"}, ".4f")
    layers = [mark("rect", {**place, "fill": fill, "tooltip": tip}, stroke=colour("paper"), strokeWidth=1)]
    if cell >= 28:
        layers.append(values_on(place, "cosine", half, cell))
    size = {"width": cell * num_experts, "height": min(cell, 34) * num_experts}
    return finish({**named("cosines"), "layer": layers, **size}, "Cosine between every two task vectors")
