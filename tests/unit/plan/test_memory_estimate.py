"""The planned peak memory of a merge without data is within 25 % of what the operating system measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "supermerge"


# A child's peak starts at the size of the process that forked it, so a small one stands between it and pytest.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak_of(*arguments: object) -> int:
    """Peak resident bytes of one command."""
    command = [sys.executable, "-c", MEASURE, str(COMMAND), *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


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
