"""A run that is stopped at any point leaves no directory, and ends like one that was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "supermerge", "run"]
SETTINGS = ["--set", "method.steps=12", "--set", "method.save_every=0.01", "--log-format", "json"]
FILES = ("model.safetensors", "coefficients.safetensors")


DERIVED = ["--set", "method.init=tsv_m", "--set", "method.on=ties"]


def _start(tiny: Path, output: Path, *settings: str) -> subprocess.Popen[str]:
    command = [*COMMAND, str(tiny / "recipe.yaml"), "-o", str(output), *SETTINGS, *settings]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def _whole(tiny: Path, output: Path, *settings: str) -> dict[str, bytes]:
    process = _start(tiny, output, *settings)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return {name: (output / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_while_learning_and_resumed(tiny: Path, tmp_path: Path, sign: signal.Signals) -> None:
    expected = _whole(tiny, tmp_path / "whole")
    process = _start(tiny, tmp_path / "out")
    assert process.stderr is not None
    for line in process.stderr:
        if '"step"' in line and '"step": 5,' in line:
            break
    process.send_signal(sign)
    process.communicate()
    assert process.returncode == (-sign if sign == signal.SIGKILL else 130)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out.supermerge-state/*.safetensors"))
    assert _whole(tiny, tmp_path / "out") == expected
    assert not list(tmp_path.glob(".out.*state*"))


@pytest.mark.parametrize("event", ["derive", "step"])
def test_killed_with_derived_task_vectors_and_resumed(tiny: Path, tmp_path: Path, event: str) -> None:
    expected = _whole(tiny, tmp_path / "whole", *DERIVED)
    process = _start(tiny, tmp_path / "out", *DERIVED)
    assert process.stderr is not None
    for line in process.stderr:
        if f'"{event}"' in line:
            break
    process.kill()
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out.supermerge-state/derived-*"))
    assert _whole(tiny, tmp_path / "out", *DERIVED) == expected
    assert not list(tmp_path.glob(".out.*state*"))


@pytest.mark.slow
def test_killed_at_many_moments(tiny: Path, tmp_path: Path) -> None:
    expected = _whole(tiny, tmp_path / "whole")
    start = time.monotonic()
    _whole(tiny, tmp_path / "timed")
    length = time.monotonic() - start
    for i in range(12):
        output = tmp_path / f"out{i}"
        process = _start(tiny, output)
        time.sleep(length * (i + 1) / 13)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if output.exists():
            assert {name: (output / name).read_bytes() for name in FILES} == expected
        else:
            assert _whole(tiny, output) == expected
