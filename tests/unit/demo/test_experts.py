from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from supermerge.demo.experts import Job, train_missing
from supermerge.demo.pupils import TextPupil
from supermerge.demo.sources.corpus import Example
from supermerge.demo.train import Training
from supermerge.errors import ResourceError
from supermerge.events import Event, subscribed

EXAMPLES = tuple(Example(text, label) for text, label in [("ice snow", "cold"), ("sun sand", "warm")] * 6)


def _job(base: Path, directory: Path) -> Job:
    pupil = partial(TextPupil, base, EXAMPLES, ("cold", "warm"), 40)
    return Job(directory.name, pupil, len(EXAMPLES), Training(epochs=1, batch_size=4), directory)


def test_nothing_starts_where_every_expert_exists(tmp_path: Path) -> None:
    events: list[Event] = []
    with subscribed(events.append):
        train_missing([_job(tmp_path / "no base is needed", tmp_path)])
    assert events == []


@pytest.mark.slow
def test_experts_train_in_processes_of_their_own_and_tell_their_steps(base: Path, tmp_path: Path) -> None:
    jobs = [_job(base, tmp_path / name) for name in ("one", "two", "three")]
    events: list[Event] = []
    with subscribed(events.append):
        train_missing(jobs)
    counted = [event.fields for event in events if event.kind == "progress"]
    assert (counted[-1]["done"], counted[-1]["total"]) == (9, 9)
    weights = [(job.directory / "model.safetensors").read_bytes() for job in jobs]
    assert weights[0] == weights[1] == weights[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]


@pytest.mark.slow
def test_an_expert_that_cannot_be_trained_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="training expert lost stopped with exit code 1"):
        train_missing([_job(tmp_path / "absent", tmp_path / "lost")])
    assert not (tmp_path / "lost").exists()
