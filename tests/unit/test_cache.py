from __future__ import annotations

from pathlib import Path

import pytest

from supermerge.cache import cache_directory


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SUPERMERGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_below_the_home_directory_by_default(tmp_path: Path) -> None:
    assert cache_directory() == tmp_path / ".cache" / "supermerge"


def test_follows_xdg_but_not_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/elsewhere")
    assert cache_directory() == Path("/var/elsewhere/supermerge")
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert cache_directory() == tmp_path / ".cache" / "supermerge"


def test_its_own_variable_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/elsewhere")
    monkeypatch.setenv("SUPERMERGE_CACHE", "~/kept")
    assert cache_directory() == tmp_path / "kept"
