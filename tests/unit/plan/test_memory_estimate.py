"""The planned peak memory is within 25 % of what the operating system measures, without data and while learning."""

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


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["clip-vit-b32", "dinov2-small", "llama-tiny", "minilm"])
def test_peak_memory_while_learning(arch: str, tmp_path: Path) -> None:
    make = [sys.executable, Path(__file__).with_name("make_learned.py"), arch, tmp_path]
    subprocess.run(make, capture_output=True, check=True)
    recipe = tmp_path / "recipe.yaml"
    planned = json.loads(
        subprocess.run([COMMAND, "plan", recipe, "--json"], capture_output=True, text=True, check=True).stdout
    )
    measured = peak_of("run", recipe, "--quiet")
    assert planned["activations"] == "counted"
    assert planned["peak_memory"] == pytest.approx(measured, rel=0.25)
    metrics = json.loads((tmp_path / "merged" / "metrics.json").read_text())
    learning = max(phase["peak_rss_bytes"] for phase in metrics["cost"]["phases"] if phase["name"] == "learning")
    holds = {phase["name"]: phase["holds"] for phase in planned["phases"]}
    assert holds["learn"] == pytest.approx(learning, rel=0.25)
