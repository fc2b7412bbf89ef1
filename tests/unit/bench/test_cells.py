from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from suites import static
from suites.cells import Cell
from suites.run import Wish, groups
from suites.static import Tuning, best_of_each
from suites.tasks import SUITES, TEXT8
from supermerge.run.prepared import Prepared


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (Cell("text8", "linear", 32, None), "linear"),
        (Cell("text8", "linear", 32, None, left_out=True), "ood.linear"),
        (Cell("text8", "ties", 8, 1), "ties.b8.d1"),
        (Cell("text8", "ties", 8, 1, left_out=True), "ood.ties.b8.d1"),
    ],
)
def test_names_of_cells(cell: Cell, name: str) -> None:
    assert (cell.name, cell.file.name) == (name, f"{name}.json")


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_tasks_that_are_left_out_are_the_suites_own(suite: Any) -> None:
    assert set(suite.left_out) < {task.name for task in suite.tasks}


def test_budgets_that_only_choose_are_made_together() -> None:
    wish = Wish([8, 128], ["ties", "supermerge_labels", "linear"], [0, 1])
    found = [[(cell.row, cell.budget, cell.draw) for cell in group] for group in groups(TEXT8, wish)]
    assert found == [
        [("linear", 8, None)],
        [("ties", 8, 0), ("ties", 128, 0)],
        [("supermerge_labels", 8, 0)],
        [("supermerge_labels", 128, 0)],
        [("ties", 8, 1), ("ties", 128, 1)],
        [("supermerge_labels", 8, 1)],
        [("supermerge_labels", 128, 1)],
    ]


def test_without_some_experts_there_are_only_merges() -> None:
    wish = Wish([32], ["base", "multitask", "probe_base", "iso_c"], [0], left_out=True)
    assert [group[0].name for group in groups(TEXT8, wish)] == ["ood.iso_c.b32.d0"]


def test_every_set_of_labels_chooses_for_itself_and_candidates_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    clock = iter(range(100))
    # By candidate and number of labels: (accuracy, loss).
    judged = {(0.1, 8): (0.5, 1.0), (0.3, 8): (0.6, 1.0), (0.1, 32): (0.5, 1.0), (0.3, 32): (0.5, 2.0)}
    loaded: list[float] = []

    def make(params: Any) -> Any:
        made.append(params["scale"])
        return params["scale"]

    monkeypatch.setattr(static, "validation", lambda bench, rows: judged[loaded[-1], rows["labels"]])
    # Every answering takes one second of this clock.
    monkeypatch.setattr(static.time, "process_time", lambda: float(next(clock)))
    bench = SimpleNamespace(load=loaded.append)
    ready = cast("Prepared", SimpleNamespace(require_bench=lambda why: bench))
    sets = cast("Any", [{"labels": 8}, {"labels": 32}])
    few, more = best_of_each(ready, Tuning([{"scale": 0.1}, {"scale": 0.3}], make), sets)
    assert made == [0.1, 0.3]
    assert (few.settings, few.validation) == ({"scale": 0.3}, (0.6, 1.0))
    # Equal accuracies: the lower loss.
    assert (more.settings, more.validation) == ({"scale": 0.1}, (0.5, 1.0))
    # Two answerings for the other set, one second each.
    assert few.elsewhere == more.elsewhere == 2.0
