"""report.html: one file that shows a run, without network, on a phone, a desk and paper, in light and dark."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

from supermerge.report import numbers, palette
from supermerge.report.adapter import described
from supermerge.report.charts.chart import Chart
from supermerge.report.provenance import Provenance
from supermerge.report.results import Results
from supermerge.report.summary import best_merged, expert_names, is_measured, score_rows, title, verdict
from supermerge.report.vega import vega

if TYPE_CHECKING:
    import jinja2
    import markupsafe


def page(results: Results, charts: Mapping[str, Chart], provenance: Provenance | None) -> str:
    """The whole page. Its content security policy allows its own scripts (by hash) and nothing from anywhere else."""
    from jinja2.utils import htmlsafe_json_dumps

    template = files("supermerge.report") / "template"
    scripts = [vega(), (template / "report.js").read_text("utf-8")] if charts else []
    scripts.append((template / "copy.js").read_text("utf-8"))
    rows = score_rows(results)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            provenance=provenance,
            charts=charts,
            pictures=is_measured(results),
            rows=rows,
            by_kind={row.kind: row for row in reversed(rows)},
            best={task: best_merged(results, task) for task in results.tasks},
            verdict=verdict(results),
            title=title(results, provenance),
            adapter=described(results.adapter) if results.adapter else None,
            expert_names=expert_names(results, provenance),
            charts_json=htmlsafe_json_dumps(
                {name: {"specs": chart.specs, "data": chart.data} for name, chart in charts.items()}
            ),
            css=(template / "report.css").read_text("utf-8"),
            light=palette.css("light"),
            dark=palette.css("dark"),
            scripts=scripts,
            policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        )
    )


def environment() -> jinja2.Environment:
    """Templates escape whatever they print; a name that a template lacks is an error."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader("supermerge.report", "template"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.update(score=numbers.score, seconds=numbers.seconds, size=numbers.size, breakable=_breakable)
    return env


def _breakable(name: str) -> markupsafe.Markup:
    """A name that may be broken after an underscore, a slash or a dot."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[_/.])", "<wbr>", str(escape(name))))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
