"""What every chart shares: a specification without its data, the data beside it, and one look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supermerge.report.palette import RAMP, colour, resolved

if TYPE_CHECKING:
    import altair as alt

Rows = list[dict[str, Any]]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DIVERGING = [colour(name) for name in RAMP]
_SMALL = {"labelColor": colour("muted"), "titleColor": colour("muted"), "labelFontSize": 11, "titleFontSize": 11}
LOOK: dict[str, Any] = {
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
    specs: Mapping[int, dict[str, Any]]
    data: Mapping[str, Rows]

    def png(self, *, scale: float = 2) -> bytes:
        """The widest drawing as a picture in the light colours, on their ground: it must read on a dark page too."""
        import vl_convert

        spec = json.loads(resolved(json.dumps(self.specs[max(self.specs)]), "light"))
        ground = {"background": resolved(colour("paper"), "light"), "padding": 10}
        return vl_convert.vegalite_to_png(
            {**spec, **ground, "datasets": dict(self.data)}, scale=scale, allowed_base_urls=[]
        )


def finish(chart: alt.TopLevelMixin, description: str, *, ramp_length: int = 0) -> dict[str, Any]:
    """The Vega-Lite specification of `chart` in the house style.

    `description` is read out by screen readers; `ramp_length` is the length in pixels of the legend of a heat map.
    """
    # Checking every specification against the schema costs a second; the tests do it instead.
    spec = chart.to_dict(validate=False)
    config = {**LOOK, "legend": {**LOOK["legend"], "gradientLength": ramp_length}} if ramp_length else LOOK
    return {**spec, "description": description, "config": config, "padding": 2}


def label_limit(width: int) -> int:
    """How many pixels a name may take at the left of a chart `width` wide."""
    return 92 if width < 500 else 150


def columns(count: int, width: int, smallest: int) -> int:
    """How many panels stand side by side: as many as fit, in rows of even length."""
    most = max(1, min(count, width // smallest))
    rows = -(-count // most)
    return -(-count // rows)


def tooltip(fields: Mapping[str, str], number: str = ".3f") -> list[alt.Tooltip]:
    """What to show on hover: field (with its type, `value:Q`) and title; `number` formats the quantities."""
    import altair as alt

    return [
        alt.Tooltip(field, title=title, format=number) if field.endswith(":Q") else alt.Tooltip(field, title=title)
        for field, title in fields.items()
    ]


def in_order(field: str) -> alt.EncodingSortField:
    """Categories sorted by a number in the data: names from outside never become part of an expression."""
    import altair as alt

    return alt.EncodingSortField(field, op="min", order="ascending")


def names(field: str, order: str, limit: int) -> alt.Y:
    """The vertical axis of a chart with one line per name; `limit` is the room for the names."""
    import altair as alt

    return alt.Y(field, sort=in_order(order), title=None, axis=alt.Axis(labelLimit=limit - 6))


def values_on(cells: alt.Chart, field: str, half: float, cell: float) -> alt.Chart:
    """The values written on the cells of a heat map with a diverging scale of ±`half`, readable on every colour."""
    import altair as alt

    ink = alt.condition(f"abs(datum.{field}) > {0.68 * half}", alt.value(colour("paper")), alt.value(colour("ink")))
    return cells.mark_text(fontSize=11 if cell >= 34 else 9).encode(text=alt.Text(f"{field}:Q", format=".2f"), fill=ink)


def extent(values: Sequence[float]) -> float:
    """The largest distance from zero, at least a hundredth: half the width of a diverging scale."""
    return max(0.01, *(abs(value) for value in values)) if values else 0.01
