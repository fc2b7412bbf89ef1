"""A few faults of each kind here, hundreds with `make faults`. See harness.py for what must hold after each of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MANY = "SUPERMERGE_FAULTS" in os.environ
COUNTS = {"kills": 200 if MANY else 12, "full-disk": 50 if MANY else 6, "others": 6 if MANY else 1}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The tiny example."""
    spec = importlib.util.spec_from_file_location("make_tiny", HERE.parents[1] / "examples" / "tiny" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(tmp_path / "tiny", pretraining=0)
    return tmp_path / "tiny"


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_nothing_is_lost_and_nothing_half_written(kind: str, tiny: Path) -> None:
    command = [sys.executable, str(HERE / "harness.py"), kind, str(tiny), str(COUNTS[kind]), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)["outcomes"]
    assert sum(outcomes.values()) >= COUNTS[kind]
    assert len(outcomes) >= 2
