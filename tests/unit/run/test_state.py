"""The state of an interrupted run: there as it was saved, or not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from supermerge.run.state import StateDirectory


def test_a_state_that_is_half_deleted_is_not_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = StateDirectory(tmp_path / "merged", keep=True)
    for name in ("a", "b"):
        (states.path / name).mkdir(parents=True)

    def killed(path: Path, *args: Any, **kwargs: Any) -> None:
        (path / "a").rmdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            states.discard()
    assert not states.path.exists()
    with StateDirectory(tmp_path / "merged", keep=True):
        assert list(tmp_path.iterdir()) == []
