"""What a run's events add up to."""

from __future__ import annotations

import json
from pathlib import Path

from supermerge.events import emit, phase
from supermerge.run.journal import journalled


def test_a_phase_inside_another_counts_once_and_a_repeated_one_together() -> None:
    with journalled() as journal:
        with phase("merge"):
            pass
        first = journal.phases[0].seconds
        with phase("scoring"), phase("tuning"), phase("merge"):
            pass
        with phase("merge"):
            pass
    assert [one.name for one in journal.phases] == ["merge", "scoring"]
    assert journal.phases[0].seconds > first


def test_every_event_but_progress_is_a_line(tmp_path: Path) -> None:
    with journalled() as journal:
        emit("progress", done=1)
        emit("warning", message="look")
        emit("warning", message="look")
    journal.write(tmp_path / "run.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["warning", "warning"]
    assert journal.warnings == ["look"]
