from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supermerge.errors import RefusedError
from supermerge.verify import Verified


def test_says_what_was_verified(supermerge_command: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermerge.verify.verify", lambda _: Verified(files=9, tensors=1234, bytes_read=2_000_000))
    done = supermerge_command("verify", "out")
    assert done.code == 0
    assert done.out == "✓ out: 1,234 tensors and 9 files (2 MB) are as recipe.lock.json says\n"


def test_a_difference_is_refused(supermerge_command: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(directory: Path) -> Verified:
        raise RefusedError(f"{directory}: not as recipe.lock.json says:\nx has changed")

    monkeypatch.setattr("supermerge.verify.verify", differs)
    done = supermerge_command("verify", "out")
    assert (done.code, done.out) == (7, "")
    assert "x has changed" in done.err


def test_not_a_merged_directory(supermerge_command: Callable[..., object], tmp_path: Path) -> None:
    done = supermerge_command("verify", tmp_path)
    assert (done.code, done.out) == (4, "")
    assert "recipe.lock.json" in done.err
