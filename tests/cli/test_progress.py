from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from supermerge.cli.learning import LearningProgress
from supermerge.cli.progress import showing_progress
from supermerge.cli.progress_live import LiveProgress
from supermerge.events import Event, emit, phase, subscribed


def play() -> None:
    """The events of a small run."""
    emit("warning", message="few examples")
    with phase("merge"):
        for done in range(1, 4):
            emit("progress", phase="merge", done=done, total=3, unit="tensors")
    with phase("learning"):
        emit("learn_started", steps=2, tasks=["news"], coefficients=74)
        for step, loss in enumerate((0.9, 0.5)):
            held_back = 0.8 - 0.1 * step
            emit("step", step=step, steps=2, loss=loss, losses={"news": loss}, held_back=held_back, rss_bytes=10**9)
    emit("evaluated", model="merged", task="news", metric="accuracy", value=0.915)
    emit("note", message="done")


def test_text_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress("text"):
        play()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [re.sub(r"\d+\.\d s$", "T", line) for line in captured.err.splitlines()]
    assert lines[0] == "warning: few examples"
    assert "merge: 1 of 3 tensors" not in lines, "too soon for a line"
    assert "merge: T" in lines
    assert "74 coefficients, up to 2 steps" in lines
    assert any(line.startswith("step 2/2: loss 0.500, held back 0.700 (best 0.700 after 1)") for line in lines)
    assert lines[-2:] == ["merged on news: accuracy 0.915", "done"]


def test_json_lines_are_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress("json"):
        play()
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.err.splitlines()]
    assert captured.out == ""
    assert [event["event"] for event in events[:3]] == ["warning", "phase_started", "progress"]
    assert events[-2]["value"] == 0.915
    assert all(isinstance(event["at"], float) for event in events)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_quiet_leaves_warnings(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress(log_format, quiet=True):
        play()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "few examples" in lines[0]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What the live display wrote to a terminal of 100 columns, without colours and cursor movements."""
    file = io.StringIO()

    def console(**_: object) -> Console:
        return Console(file=file, force_terminal=True, width=100, height=30, highlight=False)

    monkeypatch.setattr("supermerge.cli.progress_live.Console", console)
    return lambda: re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())


def test_live_keeps_finished_phases(screen: Callable[[], str]) -> None:
    with LiveProgress() as progress, subscribed(progress):
        play()
    text = screen()
    assert "! few examples" in text
    assert "✓ Merge" in text
    assert re.search(r"✓ Learning  0\.\d s  2 steps, best held-back loss 0\.700 after 1", text)
    assert "merged on news: accuracy 0.915" in text


def test_live_shows_the_current_phase(screen: Callable[[], str]) -> None:
    with LiveProgress() as progress, subscribed(progress), phase("learning"):
        emit("step", step=0, steps=4, loss=0.9, losses={"news": 0.9, "spam": 0.4}, rss_bytes=2 * 10**9)
        emit("step", step=1, steps=4, loss=0.3, losses={"news": 0.3, "spam": 0.2}, rss_bytes=2 * 10**9)
        shown = io.StringIO()
        Console(file=shown, width=100).print(progress.render())
    text = shown.getvalue()
    assert "Learning" in text
    assert "2/4 steps" in text
    assert "█▁" in text
    assert "loss 0.300" in text
    assert "2 GB" in text
    assert "news 0.300   spam 0.200" in text


def test_live_takes_three_lines_of_eighty_columns(screen: Callable[[], str]) -> None:
    with LiveProgress() as progress, subscribed(progress), phase("learning"):
        for step in range(40):
            losses = {f"a task of many {number}": 0.5 for number in range(6)}
            emit("step", step=step, steps=400, loss=1.25, held_back=1.25, losses=losses, rss_bytes=2 * 10**9)
        shown = io.StringIO()
        Console(file=shown, width=80).print(progress.render())
    lines = shown.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  loss 1.250 · held back 1.250 (best 1.250 after 0)")
    assert "▁ " in lines[2]
    assert lines[2].endswith("…")


def test_time_left_follows_the_pace() -> None:
    progress = LearningProgress()
    for step in range(3):
        progress.see(Event("step", 100.0 + 2 * step, {"step": step, "steps": 10, "loss": 1.0}))
    assert progress.seconds_left == pytest.approx(14.0)
    assert progress.curve() == "▁▁▁"
