"""What every chart shares: a specification without its data, the data beside it, and one look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supermerge.report.palette import RAMP, colour, resolved

Rows = list[dict[str, Any]]
Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_TYPES = {"Q": "quantitative", "N": "nominal"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DIVERGING = [colour(name) for name in RAMP]
_SMALL = {"labelColor": colour("muted"), "titleColor": colour("muted"), "labelFontSize": 11, "titleFontSize": 11}
LOOK: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        **_SMALL,
        "gridColor": colour("line"),
        "domainColor": colour("line"),
        "tickColor": colour("line"),
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
        "tickSize": 3,
    },
    "axisY": {"domain": False, "ticks": False},
    "header": {
        "labelColor": colour("ink"),
        "labelFontSize": 12,
        "labelFontWeight": 600,
        "labelPadding": 6,
        "labelAnchor": "start",
        "title": None,
    },
    "legend": {**_SMALL, "titleFontWeight": "normal", "symbolStrokeWidth": 2, "gradientThickness": 9},
    "text": {"fill": colour("ink"), "fontSize": 11},
    "concat": {"spacing": 24},
    "facet": {"spacing": 18},
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart drawn at several widths over the same data.

    `name` is its file name, `title` and `caption` are the words beside it, `specs` maps a width in pixels to
    a Vega-Lite specification whose data is named, `data` maps these names to rows.
    """

    name: str
    title: str
    caption: str
    specs: Mapping[int, Spec]
    data: Mapping[str, Rows]

    def png(self, *, scale: float = 2) -> bytes:
        """The widest drawing as a picture in the light colours, on their ground: it must read on a dark page too."""
        import vl_convert

        spec = json.loads(resolved(json.dumps(self.specs[max(self.specs)]), "light"))
        ground = {"background": resolved(colour("paper"), "light"), "padding": 10}
        return vl_convert.vegalite_to_png(
            {**spec, **ground, "datasets": dict(self.data)}, scale=scale, allowed_base_urls=[]
        )


def finish(chart: Spec, description: str, *, ramp_length: int = 0) -> Spec:
    """`chart` as a whole specification in the house style.

    `description` is read out by screen readers; `ramp_length` is the length in pixels of the legend of a heat map.
    """
    config = {**LOOK, "legend": {**LOOK["legend"], "gradientLength": ramp_length}} if ramp_length else LOOK
    return {"$schema": _SCHEMA, **chart, "description": description, "config": config, "padding": 2}


def mark(kind: str, channels: Spec, **look: Any) -> Spec:
    """One layer: marks of a kind, where `channels` says."""
    return {"mark": {"type": kind, **look}, "encoding": channels}


def channel(field: str, **settings: Any) -> Spec:
    """What a channel shows: a field with its type, `value:Q` for a quantity or `name:N` for a name."""
    name, _, kind = field.partition(":")
    return {"field": name, "type": _TYPES[kind], **settings}


def named(data: str) -> Spec:
    """The rows that a chart is about, by the name that `Chart.data` has for them."""
    return {"data": {"name": data}}


def label_limit(width: int) -> int:
    """How many pixels a name may take at the left of a chart `width` wide."""
    return 92 if width < 500 else 150


def columns(count: int, width: int, smallest: int) -> int:
    """How many panels stand side by side: as many as fit, in rows of even length."""
    most = max(1, min(count, width // smallest))
    rows = -(-count // most)
    return -(-count // rows)


def tooltip(fields: Mapping[str, str], number: str = ".3f") -> list[Spec]:
    """What to show on hover: field (with its type, `value:Q`) and title; `number` formats the quantities."""
    formats = {"format": number}
    return [channel(field, title=title, **(formats if field.endswith(":Q") else {})) for field, title in fields.items()]


def in_order(field: str) -> Spec:
    """Categories sorted by a number in the data: names from outside never become part of an expression."""
    return {"field": field, "op": "min", "order": "ascending"}


def names(field: str, order: str, limit: int, **axis: Any) -> Spec:
    """The vertical axis of a chart with one line per name; `limit` is the room for the names."""
    return channel(field, sort=in_order(order), title=None, axis={"labelLimit": limit - 6, **axis})


def values_on(channels: Spec, field: str, half: float, cell: float) -> Spec:
    """The values written on the cells of a heat map with a diverging scale of ±`half`, readable on every colour."""
    dark = {"test": f"abs(datum.{field}) > {0.68 * half}", "value": colour("paper")}
    ink = {"condition": dark, "value": colour("ink")}
    text = channel(f"{field}:Q", format=".2f")
    return mark("text", {**channels, "text": text, "fill": ink}, fontSize=11 if cell >= 34 else 9)


def extent(values: Sequence[float]) -> float:
    """The largest distance from zero, at least a hundredth: half the width of a diverging scale."""
    return max(0.01, *(abs(value) for value in values)) if values else 0.01
