"""Runs into one directory at the same time: one wins, the others say so, and the winner's model is whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supermerge.verify import verify


def test_one_run_wins(tiny: Path) -> None:
    command = [sys.executable, "-m", "supermerge", "run", "recipe.yaml", "--quiet", "--set", "method.save_every=0.01"]
    racers = [
        subprocess.Popen([*command, *extra], cwd=tiny, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for extra in ([], ["--no-resume"], [])
    ]
    ends = [(racer.communicate()[1], racer.returncode) for racer in racers]
    assert sorted(code for _, code in ends) == [0, 5, 5], ends
    for message, code in ends:
        assert "Traceback" not in message
        assert code == 0 or "another run is writing it" in message or "exists already" in message
    assert verify(tiny / "merged").inputs == ("base", "topic", "mood")
    assert sorted(path.name for path in tiny.iterdir()) == ["base", "data", "experts", "merged", "recipe.yaml"]
