"""Heat maps of the coefficients: layer × expert, and every tensor (kind × layer, one panel per expert)."""

from __future__ import annotations

from collections import defaultdict

from supermerge.report import layers
from supermerge.report.charts.chart import (
    DIVERGING,
    Chart,
    Rows,
    Spec,
    channel,
    columns,
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
from supermerge.report.results import Coefficients, Results

_MOST_KINDS = 36
_MOST_PANELS = 16
"""More experts' maps nobody reads, and drawing them takes megabytes each."""
# Labels stand at the lower bound of a colour. The first has none; only the outer two and the middle have room.
_LEGEND_LABELS = (
    f"datum.index === 1 || datum.index === {len(DIVERGING) - 1} ? format(datum.value, '.2f')"
    f" : datum.index === {len(DIVERGING) // 2} ? '0' : ''"
)


def by_layer(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """The mean coefficient of each expert in each layer."""
    found = results.coefficients
    if found is None or not found.tensors or not found.experts:
        return None
    places = layers.places(found.tensors)
    cells: dict[tuple[str, int], list[float]] = defaultdict(list)
    for place, row in zip(places, found.values, strict=True):
        for expert, value in enumerate(row):
            cells[place.layer, expert].append(value)
    order = _layer_order(places)
    data: Rows = [
        {
            "layer": layer,
            "layer_order": order[layer],
            "expert": found.experts[expert],
            "order": expert,
            "mean": sum(values) / len(values),
            "low": min(values),
            "high": max(values),
            "tensors": len(values),
        }
        for (layer, expert), values in cells.items()
    ]
    half = extent([row["mean"] for row in data])
    specs = {width: _layer_map(len(order), len(found.experts), half, width) for width in widths}
    caption = "How much of each expert’s task vector is added, averaged over the tensors of a layer."
    if found.start:
        caption += (
            f" “{found.start}” is the merge that learning started at, taken as one more vector of twice its length:"
            " 0.5 with 0 for the experts is that merge; what the experts have was added to it or taken away."
        )
    if layers.OUTSIDE in order:
        caption += f" “{layers.OUTSIDE}” holds the tensors outside numbered layers, such as embeddings."
    return Chart("coefficients", "Coefficients by layer", caption, specs, {"coefficients": data})


def by_tensor(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """Every coefficient: one panel per expert, kinds of tensor down, layers across.

    Of many experts, those with the largest coefficients.
    """
    found = results.coefficients
    if found is None or len(found.tensors) < 2 or not found.experts:
        return None
    found, whole = _largest(found), found
    places = layers.places(found.tensors)
    kinds = layers.shorten([place.kind for place in places], _MOST_KINDS)
    data = _tensor_cells(found, places, kinds)
    num_layers, num_kinds = len(_layer_order(places)), len(set(kinds))
    half = extent([row["value"] for row in data])
    specs = {width: _tensor_maps(len(found.experts), num_layers, num_kinds, half, width) for width in widths}
    caption = f"The {len(found.tensors):,} merged tensors, sorted by layer (across) and kind (down)."
    if len(found.experts) < len(whole.experts):
        caption += f" Of {len(whole.experts)} experts, the {len(found.experts)} with the largest coefficients."
    if num_kinds < len({place.kind for place in places}):
        caption += " Tensors whose names begin alike share a cell, which shows their mean."
    return Chart("coefficients-by-tensor", "Coefficients of every tensor", caption, specs, {"tensors": data})


def _largest(found: Coefficients) -> Coefficients:
    """The experts that fit into a chart, by the sum of what their coefficients are without sign, in their order."""
    if len(found.experts) <= _MOST_PANELS:
        return found
    sums = [sum(map(abs, column)) for column in zip(*found.values, strict=True)]
    kept = sorted(sorted(range(len(sums)), key=lambda i: -sums[i])[:_MOST_PANELS])
    values = [[row[i] for i in kept] for row in found.values]
    return found.model_copy(update={"experts": [found.experts[i] for i in kept], "values": values})


def _tensor_cells(found: Coefficients, places: list[layers.Place], kinds: list[str]) -> Rows:
    cells: dict[tuple[int, str, str], list[tuple[str, float]]] = defaultdict(list)
    for tensor, place, kind, row in zip(found.tensors, places, kinds, found.values, strict=True):
        for expert, value in enumerate(row):
            cells[expert, kind, place.layer].append((tensor, value))
    layer_order = _layer_order(places)
    # Kinds outside the layers come last, in file order: they would tear the layered ones apart.
    layered = [kind for kind, place in zip(kinds, places, strict=True) if place.layer != layers.OUTSIDE]
    kind_order = {kind: order for order, kind in enumerate(dict.fromkeys([*layered, *kinds]))}
    return [
        {
            "expert": found.experts[expert],
            "order": expert,
            "kind": kind,
            "kind_order": kind_order[kind],
            "layer": layer,
            "layer_order": layer_order[layer],
            "value": round(sum(value for _, value in group) / len(group), 5),
            "tensor": group[0][0] if len(group) == 1 else f"{len(group)} tensors",
        }
        for (expert, kind, layer), group in cells.items()
    ]


def _layer_order(places: list[layers.Place]) -> dict[str, int]:
    """Layers in file order, the tensors outside them first."""
    found = dict.fromkeys(place.layer for place in places)
    inside = [layer for layer in found if layer != layers.OUTSIDE]
    outside = [layers.OUTSIDE] if layers.OUTSIDE in found else []
    return {layer: order for order, layer in enumerate(outside + inside)}


def _ramp(field: str, half: float) -> Spec:
    legend = {
        "title": "coefficient",
        "orient": "top",
        "direction": "horizontal",
        "titleOrient": "left",
        "offset": 8,
        "titlePadding": 10,
        "labelExpr": _LEGEND_LABELS,
    }
    return channel(field, scale={"type": "quantize", "domain": [-half, half], "range": DIVERGING}, legend=legend)


def _layer_map(num_layers: int, num_experts: int, half: float, width: int) -> Spec:
    limit = label_limit(width)
    room = width - limit - 14
    cell = min(84, max(4, room // num_layers))
    place = {"x": _layers("layer", cell), "y": names("expert:N", "order", limit)}
    tip = {"expert:N": "Expert", "layer:N": "Layer", "mean:Q": "Mean", "low:Q": "Lowest", "high:Q": "Highest"}
    shown = {**place, "fill": _ramp("mean:Q", half), "tooltip": tooltip({**tip, "tensors:N": "Tensors"})}
    parts = [mark("rect", shown, stroke=colour("paper"), strokeWidth=1 if cell > 8 else 0)]
    if cell >= 28:
        parts.append(values_on(place, "mean", half, cell))
    size = {"width": cell * num_layers, "height": 26 * num_experts}
    return finish(
        {**named("coefficients"), "layer": parts, **size},
        "Heat map of the mean coefficient of each expert in each layer",
        ramp_length=_ramp_length(room),
    )


def _tensor_maps(num_experts: int, num_layers: int, num_kinds: int, half: float, width: int) -> Spec:
    limit = 130 if width < 500 else 240
    # The end of a long name tells weight from bias, so it is the start that gives way.
    room_for = int(limit / 6.4)
    label = f"length(datum.label) > {room_for} ? '…' + slice(datum.label, {1 - room_for}) : datum.label"
    room = width - limit - 14
    across = columns(num_experts, room, min(room, max(78, 8 * num_layers)))
    cell = min(16.0, (room - 14 * (across - 1)) / across / num_layers)
    tip = {"expert:N": "Expert", "tensor:N": "Tensor", "layer:N": "Layer", "value:Q": "Coefficient"}
    shown = {
        "x": _layers(None, cell),
        "y": names("kind:N", "kind_order", limit, labelFontSize=10, labelExpr=label),
        "fill": _ramp("value:Q", half),
        "tooltip": tooltip(tip),
    }
    panel = cell * num_layers
    size = {"width": panel, "height": 13 * num_kinds}
    header = {"title": None, "labelLimit": int(panel) + 14}
    return finish(
        {
            **named("tensors"),
            "facet": channel("expert:N", sort=in_order("order"), header=header),
            "columns": across,
            "spacing": 14,
            "spec": {**mark("rect", shown, stroke=colour("paper"), strokeWidth=1 if cell > 6 else 0), **size},
        },
        "Heat map of every coefficient: kind of tensor by layer, one panel per expert",
        ramp_length=_ramp_length(room),
    )


def _ramp_length(room: int) -> int:
    """What the legend's title leaves of `room`, within reason."""
    return min(200, room - 76)


def _layers(title: str | None, cell: float) -> Spec:
    angle = 0 if cell >= 15 else -90
    axis = {"domain": False, "ticks": False, "labelOverlap": "greedy", "labelAngle": angle, "labelLimit": 80}
    return channel("layer:N", sort=in_order("layer_order"), title=title, axis=axis)
