"""Writes the report of a run: report.html, README.md and charts/*.png."""

from __future__ import annotations

from pathlib import Path

from supermerge.events import emit, phase
from supermerge.report.provenance import Provenance
from supermerge.report.results import Results


def write_report(directory: Path, results: Results, provenance: Provenance | None = None) -> list[Path]:
    """Write the page, the model card and its charts into `directory`, and say which files were written.

    The card of a merge of which nothing was scored or learned has numbers in place of pictures: drawing them would take
    longer than many a merge.
    Nothing is fetched: the page carries its own code. Without `provenance` they name no base, licence or paper.
    """
    from supermerge.report.card import card
    from supermerge.report.charts import build
    from supermerge.report.page import page
    from supermerge.report.summary import is_measured

    written: list[Path] = []
    with phase("report"):
        charts = build(results)
        pictures = charts if is_measured(results) else {}
        for chart in pictures.values():
            written.append(_write(directory / "charts" / f"{chart.name}.png", chart.png()))
        written.append(_write(directory / "README.md", card(results, pictures, provenance).encode()))
        written.append(_write(directory / "report.html", page(results, charts, provenance).encode()))
    return written


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    emit("written", path=str(path), bytes=len(content))
    return path
