from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from supermerge.cli.main import main


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def supermerge_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`supermerge_command("plan", path)`: the command in this process; gives exit code, stdout and stderr."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["supermerge", *(str(argument) for argument in arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Done(int(left.value.code or 0), captured.out, captured.err)

    return call
