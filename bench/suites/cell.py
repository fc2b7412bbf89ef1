"""Make one cell: the model, its answers on the test examples, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from suites.cells import DRAWS, Cell
from suites.controls import fine_tune, probe
from suites.draw import recipe
from suites.judge import Answers, answers, test_answers, validation
from suites.prepare import home
from suites.rows import BY_NAME, Row
from suites.static import Made, scaled
from suites.tasks import SUITES, Suite
from suites.train import MULTITASK
from supermerge.resources import peak_bytes
from supermerge.run.prepared import Prepared, prepared
from supermerge.run.rows import read_task_rows

_FEW_SHOT_RATE = 2e-5


def make(cell: Cell) -> None:
    """Compute and write. Seconds and peak memory are those of making the model: tuning in, test answers out."""
    torch.set_num_threads(1)
    suite, row = SUITES[cell.suite], BY_NAME[cell.row]
    draw = cell.draw or 0
    with prepared(recipe(suite, cell.budget, draw, row.unlabelled, multitask=row.kind == "multitask")) as ready:
        wall, cpu = time.perf_counter(), time.process_time()
        made = _made(ready, row)
        cost = {
            "seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_rss_mb": round(peak_bytes() / 1e6),
        }
        weights, found = _answers(suite, ready, row, made)
        judged = _judged(suite, cell, ready) if row.candidate else {}
    settings = dict(made.settings) if made else {}
    cell.write(
        {
            "suite": cell.suite,
            "row": cell.row,
            "kind": row.kind,
            "budget": cell.budget,
            "draw": cell.draw,
            "unlabelled": {task: len(each.unlabelled) for task, each in ready.rows.items()} if row.unlabelled else 0,
            "settings": settings,
            "validation": judged or (made.validation if made else None),
            **cost,
            "weights": weights,
            "examples": {task: len(one.right) for task, one in found.items()},
            "accuracy": {task: round(one.accuracy, 5) for task, one in found.items()},
            "loss": {task: round(one.loss, 5) for task, one in found.items()},
            "right": {task: hexadecimal(one.right) for task, one in found.items()},
        }
    )


def _made(ready: Prepared, row: Row) -> Made | None:
    """The merge; None where there is none, or where a control left its weights on the workbench."""
    if row.make is not None:
        return row.make(ready)
    if row.name == "probe_base":
        probe(ready)
    elif row.name == "few_shot_base":
        fine_tune(ready, None, _FEW_SHOT_RATE)
    elif row.name == "few_shot_merged":
        start = scaled(ready, "task_arithmetic", (0.05, 0.1, 0.15, 0.2, 0.3, 0.4))
        fine_tune(ready, start.merged, _FEW_SHOT_RATE)
    return None


def _answers(suite: Suite, ready: Prepared, row: Row, made: Made | None) -> tuple[str, dict[str, Answers]]:
    bench, kept = ready.require_bench("a suite"), home(suite) / "answers"
    if made is not None:
        return test_answers(bench, made.merged, ready.rows, kept)
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
