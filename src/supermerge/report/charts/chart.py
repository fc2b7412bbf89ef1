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


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart drawn at several widths over the same data.

    `name` is its file name, `title` and `caption` are the words beside it, `specs` maps a width in pixels to a Vega-Lite
    specification whose data is named, `data` maps these names to rows.
    """

    name: str
    title: str
    caption: str
    specs: Mapping[int, dict[str, Any]]
    data: Mapping[str, Rows]

    def png(self, *, scale: float = 2) -> bytes:
        """The widest drawing as a picture, in the light colours."""
        import vl_convert

        spec = json.loads(resolved(json.dumps(self.specs[max(self.specs)]), "light"))
        return vl_convert.vegalite_to_png({**spec, "datasets": dict(self.data)}, scale=scale, allowed_base_urls=[])


def finish(chart: alt.TopLevelMixin, description: str) -> dict[str, Any]:
    """The Vega-Lite specification of `chart` in the house style; `description` is read out by screen readers."""
    axis = {
        "labelColor": colour("muted"), "titleColor": colour("muted"), "gridColor": colour("line"),
        "domainColor": colour("line"), "tickColor": colour("line"), "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "titlePadding": 8, "labelPadding": 5, "tickSize": 3,
    }  # fmt: skip
    header = {"labelColor": colour("ink"), "labelFontSize": 12, "labelFontWeight": 600, "labelPadding": 6, "title": None}
    legend = {
        "labelColor": colour("muted"), "titleColor": colour("muted"), "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "symbolStrokeWidth": 2,
    }  # fmt: skip
    config = {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": axis,
        "axisY": {"domain": False, "ticks": False},
        "header": header,
        "legend": legend,
        "text": {"fill": colour("ink"), "fontSize": 11},
        "concat": {"spacing": 24},
        "facet": {"spacing": 18},
    }
    spec = chart.to_dict()
    return {**spec, "description": description, "config": config, "padding": 2}


def label_limit(width: int) -> int:
    """How many pixels a name may take at the left of a chart `width` wide."""
    return 92 if width < 500 else 150


def columns(count: int, width: int, smallest: int) -> int:
    """How many panels stand side by side: as many as fit, in rows of even length."""
    most = max(1, min(count, width // smallest))
    rows = -(-count // most)
    return -(-count // rows)


def extent(values: Sequence[float]) -> float:
    """The largest distance from zero, at least a hundredth: half the width of a diverging scale."""
    return max(0.01, *(abs(value) for value in values)) if values else 0.01
