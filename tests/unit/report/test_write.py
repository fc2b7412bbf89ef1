from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supermerge.events import Event, subscribed
from supermerge.report import Provenance, Results, charts, write_report


@pytest.fixture
def events() -> list[Event]:
    return []


def test_page_card_and_pictures_are_written(
    tmp_path: Path, results: Results, provenance: Provenance, events: list[Event]
) -> None:
    with subscribed(events.append):
        written = write_report(tmp_path, results, provenance)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == sorted(["README.md", "report.html", *(f"charts/{name}.png" for name in charts.build(results))])
    assert sorted(str(path.relative_to(tmp_path)) for path in written) == names
    assert [event.fields["path"] for event in events if event.kind == "written"] == [str(path) for path in written]
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "window.vegaEmbed=" in page
    assert 800_000 < len(page) < 2_000_000


def test_pictures_are_drawn_only_of_what_was_scored_or_learned(
    tmp_path: Path, build: Callable[..., Results], provenance: Provenance
) -> None:
    bare = build(tasks={}, models=[], recommendation=None, learning=None, coefficients=None)
    assert [path.name for path in write_report(tmp_path, bare, provenance)] == ["README.md", "report.html"]
    assert "its numbers are in metrics.json" in (tmp_path / "report.html").read_text("utf-8")
    assert "charts/" not in (tmp_path / "README.md").read_text("utf-8")


def test_a_merge_without_numbers_has_page_and_card_only(tmp_path: Path, empty: Results) -> None:
    assert [path.name for path in write_report(tmp_path, empty)] == ["README.md", "report.html"]
