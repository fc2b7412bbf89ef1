from __future__ import annotations

from pathlib import Path

import pytest

from supermerge import resources


def test_memory_of_this_process() -> None:
    block = bytearray(b"x" * 50_000_000)
    held = resources.resident_bytes()
    assert 50_000_000 < held <= resources.peak_bytes() * 1.01
    assert len(block) == 50_000_000


def test_free_disk_of_a_path_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert resources.free_disk_bytes(tmp_path / "a" / "b") > 0


def test_the_limit_of_the_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\nactive_file 100000\ninactive_file 50000\n")
    monkeypatch.setattr(resources, "CONTROL_GROUP", tmp_path)
    assert resources.available_bytes() == 750_000
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.available_bytes() > 1_000_000
