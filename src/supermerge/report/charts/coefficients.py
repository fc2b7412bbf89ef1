"""Heat maps of the coefficients: layer × expert, and every tensor (kind × layer, one panel per expert)."""

from __future__ import annotations

from collections import defaultdict

import altair as alt

from supermerge.report import layers
from supermerge.report.charts.chart import DIVERGING, Chart, Rows, columns, extent, finish, label_limit
from supermerge.report.palette import colour
from supermerge.report.results import Coefficients, Results

_MOST_KINDS = 36


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
            "layer": layer, "layer_order": order[layer], "expert": found.experts[expert], "order": expert,
            "mean": sum(values) / len(values), "low": min(values), "high": max(values), "tensors": len(values),
        }
        for (layer, expert), values in cells.items()
    ]  # fmt: skip
    half = extent([row["mean"] for row in data])
    specs = {width: _layer_map(len(order), len(found.experts), half, width) for width in widths}
    return Chart(
        "coefficients", "Coefficients by layer",
        "How much of each expert's task vector is added, averaged over the tensors of a layer. "
        f"“{layers.OUTSIDE}” holds the tensors outside numbered layers, such as embeddings.",
        specs, {"coefficients": data},
    )  # fmt: skip


def by_tensor(results: Results, widths: tuple[int, ...]) -> Chart | None:
    """Every coefficient: one panel per expert, kinds of tensor down, layers across."""
    found = results.coefficients
    if found is None or len(found.tensors) < 2 or not found.experts:
        return None
    places = layers.places(found.tensors)
    kinds = layers.shorten([place.kind for place in places], _MOST_KINDS)
    data = _tensor_cells(found, places, kinds)
    num_layers, num_kinds = len(_layer_order(places)), len(set(kinds))
    half = extent([row["value"] for row in data])
    specs = {width: _tensor_maps(len(found.experts), num_layers, num_kinds, half, width) for width in widths}
    shortened = " Tensors whose names begin alike share a row and show their mean." if num_kinds < len({p.kind for p in places}) else ""
    return Chart(
        "coefficients-by-tensor", "Coefficients of every tensor",
        f"The {len(found.tensors):,} merged tensors, sorted by layer (across) and kind (down).{shortened}",
        specs, {"tensors": data},
    )  # fmt: skip


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
            "expert": found.experts[expert], "order": expert, "kind": kind, "kind_order": kind_order[kind], "layer": layer,
            "layer_order": layer_order[layer], "value": round(sum(value for _, value in group) / len(group), 5),
            "tensor": group[0][0] if len(group) == 1 else f"{len(group)} tensors",
        }
        for (expert, kind, layer), group in cells.items()
    ]  # fmt: skip


def _layer_order(places: list[layers.Place]) -> dict[str, int]:
    """Layers in file order, the tensors outside them first."""
    found = dict.fromkeys(place.layer for place in places)
    inside = [layer for layer in found if layer != layers.OUTSIDE]
    outside = [layers.OUTSIDE] if layers.OUTSIDE in found else []
    return {layer: order for order, layer in enumerate(outside + inside)}


def _ramp(field: str, half: float, width: int) -> alt.Fill:
    scale = alt.Scale(type="quantize", domain=[-half, half], range=DIVERGING)
    legend = alt.Legend(
        title="coefficient", orient="top", direction="horizontal", gradientLength=min(240, width - 20), gradientThickness=9,
        titleOrient="left", format=".2f", values=[-half, 0, half], offset=8, titlePadding=10,
    )  # fmt: skip
    return alt.Fill(field, scale=scale, legend=legend)


def _layer_map(num_layers: int, num_experts: int, half: float, width: int) -> dict[str, object]:
    limit = label_limit(width)
    room = width - limit - 14
    cell = min(64, max(4, room // num_layers))
    height = 26
    chart = alt.Chart(alt.NamedData(name="coefficients")).encode(
        x=alt.X(
            "layer:N", sort=alt.EncodingSortField("layer_order", op="min"), title="layer",
            axis=alt.Axis(domain=False, ticks=False, labelOverlap="greedy", labelAngle=_angle(cell), labelLimit=80),
        ),
        y=alt.Y(
            "expert:N", sort=alt.EncodingSortField("order", op="min"), title=None, axis=alt.Axis(labelLimit=limit - 6)
        ),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("expert:N", title="Expert"), alt.Tooltip("layer:N", title="Layer"),
        alt.Tooltip("mean:Q", title="Mean", format=".3f"), alt.Tooltip("low:Q", title="Lowest", format=".3f"),
        alt.Tooltip("high:Q", title="Highest", format=".3f"), alt.Tooltip("tensors:Q", title="Tensors"),
    ]  # fmt: skip
    cells = chart.mark_rect(stroke=colour("paper"), strokeWidth=1 if cell > 8 else 0).encode(
        fill=_ramp("mean:Q", half, width), tooltip=tooltip
    )
    parts = [cells]
    if cell >= 34:
        strong = alt.condition(f"abs(datum.mean) > {0.6 * half}", alt.value(colour("paper")), alt.value(colour("ink")))
        parts.append(chart.mark_text(fontSize=11).encode(text=alt.Text("mean:Q", format=".2f"), fill=strong))
    return finish(
        alt.layer(*parts).properties(width=cell * num_layers, height=height * num_experts),
        "Heat map of the mean coefficient of each expert in each layer",
    )


def _tensor_maps(num_experts: int, num_layers: int, num_kinds: int, half: float, width: int) -> dict[str, object]:
    limit = 130 if width < 500 else 210
    room = width - limit - 14
    across = columns(num_experts, room, min(room, max(110, 9 * num_layers)))
    cell = min(16.0, (room - 14 * (across - 1)) / across / num_layers)
    chart = alt.Chart(alt.NamedData(name="tensors")).mark_rect(stroke=colour("paper"), strokeWidth=1 if cell > 6 else 0)
    chart = chart.encode(
        x=alt.X(
            "layer:N", sort=alt.EncodingSortField("layer_order", op="min"), title=None,
            axis=alt.Axis(domain=False, ticks=False, labelOverlap="greedy", labelAngle=_angle(cell), labelLimit=80),
        ),
        y=alt.Y(
            "kind:N", sort=alt.EncodingSortField("kind_order", op="min"), title=None,
            axis=alt.Axis(labelLimit=limit - 6, labelFontSize=10),
        ),
        fill=_ramp("value:Q", half, width),
        tooltip=[
            alt.Tooltip("expert:N", title="Expert"), alt.Tooltip("tensor:N", title="Tensor"),
            alt.Tooltip("layer:N", title="Layer"), alt.Tooltip("value:Q", title="Coefficient", format=".3f"),
        ],
    )  # fmt: skip
    panel = cell * num_layers
    facet = alt.Facet(
        "expert:N", sort=alt.EncodingSortField("order", op="min"), header=alt.Header(title=None, labelLimit=int(panel))
    )
    panels = chart.properties(width=panel, height=13 * num_kinds).facet(facet, columns=across, spacing=14)
    return finish(panels, "Heat map of every coefficient: kind of tensor by layer, one panel per expert")


def _angle(cell: float) -> int:
    return 0 if cell >= 15 else -90
