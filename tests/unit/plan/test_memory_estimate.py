"""The planned peak memory of a merge without data is within 25 % of what the operating system measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "supermerge"


def peak_of(*arguments: object) -> int:
    """Peak resident bytes of one command."""
    process = subprocess.Popen([COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties"])
@pytest.mark.parametrize("rows", [8, 8_000_000])
def test_peak_memory(method: str, rows: int, tmp_path: Path, write_models: Callable[..., None]) -> None:
    write_models(tmp_path, "a", "b", "c", shape=(rows, 4))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"base: base\nexperts: {{a: a, b: b, c: c}}\nmethod: {method}\noutput: {{path: merged}}\n")
    planned = subprocess.run([COMMAND, "plan", recipe, "--json"], capture_output=True, text=True, check=True)
    measured = peak_of("run", recipe, "--quiet")
    assert json.loads(planned.stdout)["peak_memory"] == pytest.approx(measured, rel=0.25)
