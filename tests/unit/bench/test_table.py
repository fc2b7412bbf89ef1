from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from suites import cells, curve, table
from suites.cell import hexadecimal
from suites.document import block
from suites.table import Line, bits, difference, lines, rows
from suites.tasks import SUITES

TASKS = ("mnist", "glyphs")


def _cell(
    row: str, kind: str, right: list[list[bool]], draw: int | None = None, of: Sequence[str] = TASKS, **other: Any
) -> dict[str, Any]:
    tests = dict(zip(of, right, strict=True))
    return {
        "row": row,
        "kind": kind,
        "budget": 32,
        "draw": draw,
        "unlabelled": 0,
        "validation": None,
        "cpu_seconds": 10.0,
        "peak_rss_mb": 500,
        "examples": {task: len(hits) for task, hits in tests.items()},
        "accuracy": {task: sum(hits) / len(hits) for task, hits in tests.items()},
        "right": {task: hexadecimal(hits) for task, hits in tests.items()},
        **other,
    }


@pytest.mark.parametrize("hits", [[True], [False, True, True], [True] * 9 + [False] * 8, [False] * 500])
def test_answers_come_back_as_they_were_kept(hits: list[bool]) -> None:
    assert bits(hexadecimal(hits), len(hits)) == [float(hit) for hit in hits]


def test_a_difference_is_paired_by_example() -> None:
    one = Line("ties", "static", [_cell("ties", "static", [[True, True, True, False], [True, True]])], 1.0)
    other = Line("iso_c", "static", [_cell("iso_c", "static", [[True, False, True, False], [True, True]])], 1.0)
    gap, error = difference(one, other)
    assert gap == pytest.approx((0.25 + 0) / 2)
    # The gaps of the first task are 0, 1, 0, 0: variance 1/4, of the mean 1/16, of the mean over tasks 1/64.
    assert error == pytest.approx(math.sqrt(1 / 64))


def test_draws_add_their_own_variance() -> None:
    draws = [
        _cell("ties", "static", [[True] * right + [False] * (4 - right), [True, True]], draw)
        for draw, right in enumerate((2, 4))
    ]
    mean, error = difference(Line("ties", "static", draws, 1.0))
    assert mean == pytest.approx((0.75 + 1) / 2)
    # Per example, over draws: 1, 1, ½, ½. Draws: 0.75 and 1.
    of_examples, of_draws = (1 / 12) / 4 / 4, (1 / 32) / 2
    assert error == pytest.approx(math.sqrt(of_examples + of_draws))


def test_supermerge_is_chosen_by_validation_not_by_test(monkeypatch: pytest.MonkeyPatch) -> None:
    poor, good = [[True, False], [False, False]], [[True, True], [True, False]]
    judged = {"supermerge_distill_row": {"0": [0.9, 1.0], "1": [0.5, 1.0], "2": [0.9, 2.0]}}
    judged["supermerge_distill_tensor"] = {"0": [0.8, 0.5], "1": [0.6, 1.0], "2": [0.9, 1.0]}
    found = [
        _cell("experts", "expert", [[True, True], [True, True]]),
        _cell(
            "supermerge_distill_row", "static", poor, validation=judged["supermerge_distill_row"], unlabelled={"a": 9}
        ),
        _cell("supermerge_distill_tensor", "static", good, validation=judged["supermerge_distill_tensor"]),
    ]
    monkeypatch.setattr(table, "results", lambda suite: found)
    made = lines("vision8", 32)
    (chosen,) = [line for line in made if line.selected]
    assert chosen.chosen == ("supermerge_distill_row", "supermerge_distill_tensor", "supermerge_distill_tensor")
    (row,) = [row for row in rows(made, 32) if row["selected"]]
    fields = [
        "method",
        "kind",
        "budget",
        "unlabelled",
        "selected",
        "mean",
        "normalised",
        "worst",
        "seconds",
        "peak_rss_mb",
    ]
    assert list(row) == [*fields, "per_task"]
    assert row["per_task"] == pytest.approx({"mnist": (0.5 + 1 + 1) / 3, "glyphs": (0 + 0.5 + 0.5) / 3}, abs=1e-5)
    assert (row["seconds"], row["unlabelled"], row["budget"]) == (20.0, 9, 32)


def test_merges_without_some_experts_are_a_column_and_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = SUITES["vision8"].left_out
    tasks = ["mnist", *left_out]

    def cell(row: str, kind: str, hits: list[list[bool]], **other: Any) -> dict[str, Any]:
        return _cell(row, kind, hits, of=tasks, **other)

    half, all_right = [True, False], [True, True]
    without = _cell("ties", "static", [half, all_right], 0, of=left_out, left_out=list(left_out))
    found = [
        cell("experts", "expert", [all_right, all_right, all_right]),
        cell("base", "base", [all_right, half, half]),
        cell("ties", "static", [half, half, half], draw=0),
        without,
    ]
    monkeypatch.setattr(table, "results", lambda suite: found)
    made = {line.method: line for line in lines("vision8", 32)}
    assert made["ties"].mean == 0.5
    assert made["ties"].on_left_out(left_out) == dict(zip(left_out, (0.5, 1.0), strict=True))
    assert made["base"].on_left_out(left_out) == dict.fromkeys(left_out, 0.5)
    text = block("vision8", lines("vision8", 32), 32)
    assert "| 0.750 (75.0 %) | 10 | 500 |" in text  # ties
    assert "| 0.500 (50.0 %) |" in text  # base
    del found[-1]
    assert {line.method: line for line in lines("vision8", 32)}["ties"].on_left_out(left_out) is None


def test_budgets_are_compared_on_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    good, poor = [[True, True], [True, True]], [[True, True], [False, False]]
    found = [_cell("experts", "expert", good)]
    found += [
        _cell("ties", "static", good if draw == curve.DRAW["vision8"] else poor, draw, budget=budget)
        for draw in (0, 1, 2)
        for budget in (8, 32)
    ]
    found.append(_cell("iso_c", "static", good, curve.DRAW["vision8"]))
    monkeypatch.setattr(table, "results", lambda suite: found)
    monkeypatch.setattr(cells, "results", lambda suite: found)
    # Iso-C has one budget, which is no curve.
    assert curve.points("vision8") == [
        {"method": "ties", "labels": budget, "of experts, %": 100.0} for budget in (8, 32)
    ]
