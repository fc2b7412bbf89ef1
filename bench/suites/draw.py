"""The recipe of one draw: the same experts, unlabelled inputs and test examples, its own labelled examples."""

from __future__ import annotations

import json
import os

from suites.prepare import data_file, home, read_part
from suites.tasks import Suite
from suites.train import MULTITASK, expert_directory, multitask_directory
from supermerge.recipe import Recipe

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
    unlabelled: int,
    *,
    multitask: bool = False,
    scored: str = "test",
    most: int = TEST,
) -> Recipe:
    """What `supermerge run` would be given. The files of the draw are written where they are missing.

    With `multitask` the one expert is the model that was trained on all tasks, under the heads that it was trained
    with. `scored` is the part whose first `most` examples are for scoring: `development` where settings are chosen.
    """
    experts = {task.name: str(expert_directory(suite, task.name)) for task in suite.tasks}
    heads = {task.name: str(multitask_directory(suite, task.name)) for task in suite.tasks}
    return Recipe.of(
        {
            "base": str(home(suite) / "base"),
            "experts": {MULTITASK: next(iter(heads.values()))} if multitask else experts,
            "method": "supermerge",
            "tasks": {
                task.name: {
                    "type": suite.type,
                    **({"expert": MULTITASK, "head": heads[task.name]} if multitask else {"expert": task.name}),
                    suite.column: suite.column,
                    "label": "label",
                    "validation": _written(
                        suite, task.name, f"b{budget}.d{draw}", labelled(suite, task.name, budget, draw)
                    ),
                    "unlabelled": _first(suite, task.name, "unlabelled", unlabelled) if unlabelled else None,
                    "test": _first(suite, task.name, scored, most),
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
