"""The recipe of one draw: the same experts, unlabelled inputs and test examples, its own labelled examples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from suites.prepare import data_file, home, read_part
from suites.tasks import Suite
from suites.train import expert_directory
from supermerge.recipe import Recipe

UNLABELLED = 256
TEST = 500


def labelled(suite: Suite, task: str, budget: int, draw: int) -> list[dict[str, str]]:
    """The labelled examples of a draw: draws follow one another in the shuffled pool, and meet only at its end."""
    pool = read_part(suite, task, "pool")
    size = min(budget, len(pool))
    return [pool[(draw * size + place) % len(pool)] for place in range(size)]


def recipe(
    suite: Suite,
    budget: int,
    draw: int,
    *,
    expert: Callable[[Suite, str], Path] = expert_directory,
    method: Mapping[str, Any] | None = None,
) -> Recipe:
    """What `supermerge run` would be given. The files of the draw are written where they are missing."""
    return Recipe.of(
        {
            "base": str(home(suite) / "base"),
            "experts": {task.name: str(expert(suite, task.name)) for task in suite.tasks},
            "method": dict(method or {"name": "supermerge"}),
            "tasks": {
                task.name: {
                    "type": suite.type,
                    "expert": task.name,
                    suite.column: suite.column,
                    "label": "label",
                    "validation": _written(
                        suite, task.name, f"b{budget}.d{draw}", labelled(suite, task.name, budget, draw)
                    ),
                    "unlabelled": _first(suite, task.name, "unlabelled", UNLABELLED),
                    "test": _first(suite, task.name, "test", TEST),
                    "metric": "accuracy",
                    **suite.settings,
                }
                for task in suite.tasks
            },
            "seed": draw,
        }
    )


def _first(suite: Suite, task: str, part: str, number: int) -> str:
    return _written(suite, task, f"{part}.{number}", read_part(suite, task, part)[:number])


def _written(suite: Suite, task: str, name: str, rows: list[dict[str, str]]) -> str:
    file = data_file(suite, task, name)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not file.exists() or file.read_text(encoding="utf-8") != content:
        # Cells run side by side and write the same files.
        staging = file.with_suffix(f".partial{os.getpid()}")
        staging.write_text(content, encoding="utf-8")
        staging.replace(file)
    return str(file)
