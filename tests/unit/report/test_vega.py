from __future__ import annotations

from pathlib import Path

import pytest

from supermerge.report.vega import vega


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SUPERMERGE_CACHE", str(tmp_path / "cache"))
    vega.cache_clear()
    return tmp_path / "cache"


def test_the_script_is_put_together_once(cache: Path) -> None:
    script = vega()
    assert "window.vegaEmbed=" in script
    (kept,) = cache.iterdir()
    assert kept.read_text("utf-8") == script
    vega.cache_clear()
    kept.write_text("kept", "utf-8")
    assert vega() == "kept"
    vega.cache_clear()


def test_a_cache_that_cannot_be_written_is_no_obstacle(cache: Path) -> None:
    cache.write_text("a file where the directory should be")
    assert "window.vegaEmbed=" in vega()
