"""Make cells: the model, its answers on the test examples, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from suites.cells import DRAWS, Cell
from suites.controls import fine_tune, probe
from suites.draw import recipe
from suites.judge import Answers, answers, test_answers, validation
from suites.learned import among
from suites.prepare import home
from suites.rows import BY_NAME, Row
from suites.static import Made, best, best_of_each, scaled
from suites.tasks import SUITES, Suite
from suites.train import MULTITASK
from supermerge.resources import peak_bytes
from supermerge.run.prepared import Prepared, prepared
from supermerge.run.rows import TaskRows, read_task_rows

_FEW_SHOT_RATE = 2e-5


def make(cells: Sequence[Cell]) -> None:
    """Compute and write cells that differ in their budgets alone: several only where labels choose among candidates.

    Seconds and peak memory are those of making the model: tuning in, test answers out. Where several budgets share
    candidates, the seconds of each are what it would have taken alone.
    """
    torch.set_num_threads(1)
    cell = max(cells, key=lambda one: one.budget)
    suite, row, draw = SUITES[cell.suite], BY_NAME[cell.row], cell.draw or 0
    with prepared(recipe(suite, cell.budget, draw, row.unlabelled, multitask=row.kind == "multitask")) as ready:
        tested = {task: rows for task, rows in ready.rows.items() if not cell.left_out or task in suite.left_out}
        merging = (
            among(ready, [task.name for task in suite.tasks if task.name not in tested]) if cell.left_out else ready
        )
        labelled = [_labelled(suite, one, merging) for one in cells]
        wall, cpu = time.perf_counter(), time.process_time()
        made = _made(merging, row, labelled)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = round(peak_bytes() / 1e6)
        for one, model in zip(cells, made, strict=True):
            weights, found = _answers(suite, ready, row, model, tested)
            judged = _judged(suite, one, ready) if row.candidate and not one.left_out else {}
            elsewhere = model.elsewhere if model else 0.0
            one.write(
                {
                    "suite": one.suite,
                    "row": one.row,
                    "kind": row.kind,
                    "budget": one.budget,
                    "draw": one.draw,
                    "left_out": list(suite.left_out) if one.left_out else [],
                    "unlabelled": {task: len(each.unlabelled) for task, each in merging.rows.items()}
                    if row.unlabelled
                    else 0,
                    "settings": dict(model.settings) if model else {},
                    "validation": judged or (model.validation if model else None),
                    "seconds": round(wall - elsewhere, 1),
                    "cpu_seconds": round(cpu - elsewhere, 1),
                    "peak_rss_mb": peak,
                    "weights": weights,
                    "examples": {task: len(each.right) for task, each in found.items()},
                    "accuracy": {task: round(each.accuracy, 5) for task, each in found.items()},
                    "loss": {task: round(each.loss, 5) for task, each in found.items()},
                    "right": {task: hexadecimal(each.right) for task, each in found.items()},
                }
            )


def _labelled(suite: Suite, cell: Cell, ready: Prepared) -> dict[str, TaskRows]:
    """The labelled examples of a cell's budget, of the tasks that are merged."""
    tasks = recipe(suite, cell.budget, cell.draw or 0, 0).tasks
    return read_task_rows({task: tasks[task] for task in ready.rows})


def _made(ready: Prepared, row: Row, labelled: Sequence[Mapping[str, TaskRows]]) -> Sequence[Made | None]:
    """A merge for each set of labelled examples; None where a control left its weights on the workbench instead."""
    if row.tune is not None:
        return best_of_each(ready, row.tune(ready), labelled)
    if len(labelled) > 1:
        raise ValueError(f"{row.name} learns from labels: one budget at a time, not {len(labelled)}")
    if row.make is not None:
        return [row.make(ready)]
    if row.name == "probe_base":
        probe(ready)
    elif row.name == "few_shot_base":
        fine_tune(ready, None, _FEW_SHOT_RATE)
    elif row.name == "few_shot_merged":
        start = best(ready, scaled(ready, "task_arithmetic", (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)))
        fine_tune(ready, start.merged, _FEW_SHOT_RATE)
    return [None]


def _answers(
    suite: Suite, ready: Prepared, row: Row, made: Made | None, tested: Mapping[str, TaskRows]
) -> tuple[str, dict[str, Answers]]:
    bench, kept = ready.require_bench("a suite"), home(suite) / "answers"
    if made is not None:
        return test_answers(bench, made.merged, tested, kept)
    if row.kind == "base":
        return test_answers(bench, ready.opened.base, ready.rows, kept)
    if row.kind == "expert":
        own = {}
        for task, source in ready.match.experts.items():
            own |= test_answers(bench, source, {task: ready.rows[task]}, kept)[1]
        return "", own
    if row.kind == "multitask":
        bench.load(ready.match.experts[MULTITASK])
    return "", {task: answers(bench, task, rows.test) for task, rows in ready.rows.items()}


def _judged(suite: Suite, cell: Cell, ready: Prepared) -> Mapping[str, Any]:
    """(accuracy, loss) on the labels of every draw: none of them has been learned from."""
    bench = ready.require_bench("a suite")
    return {str(draw): validation(bench, read_task_rows(recipe(suite, cell.budget, draw, 0).tasks)) for draw in DRAWS}


def hexadecimal(right: list[bool]) -> str:
    """Bits, the first example first, as hexadecimal digits."""
    bits = "".join("01"[hit] for hit in right)
    return f"{int(bits[::-1], 2):0{-(-len(right) // 4)}x}"
