"""Weights of tasks that protect the one furthest from its expert."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from supermerge.learn import Learned, Saving, learn
from supermerge.learn.balance import worst_first
from supermerge.learn.state import StepRecord

from .toy import toy_batches, toy_experts, toy_loss, toy_model


def test_before_the_first_step_all_count_the_same() -> None:
    assert worst_first({"a": 0.3, "b": 2.0})([]) == {"a": 1.0, "b": 1.0}


def test_the_task_furthest_from_its_expert_counts_most() -> None:
    history = [
        StepRecord(0, 3.0, {"a": 1.5, "b": 2.5}),
        StepRecord(1, 3.0, {"a": 0.5, "b": 2.5}),
        StepRecord(2, None, {}, 0.7),  # a measurement alone, without losses
    ]
    # Beyond the experts: a 1.2 + 0.2, b 0.4 + 0.4, however large b's own loss is.
    weights = worst_first({"a": 0.3, "b": 2.1})(history)
    a, b = math.exp(0.14), math.exp(0.08)
    assert weights == pytest.approx({"a": 2 * a / (a + b), "b": 2 * b / (a + b)})
    assert sum(weights.values()) == pytest.approx(2)


def _learn(batches: Any = None, **options: Any) -> Learned:
    base = toy_model().state_dict()
    options = {"steps": 12, "lr": 0.05, **options}
    return learn(toy_model(), base, toy_experts(base), batches or toy_batches(), toy_loss, **options)


def _same(one: Learned, other: Learned) -> bool:
    ours, theirs = one.coefficients.w, other.coefficients.w
    return all(torch.equal(ours[group], theirs[group]) for group in ours)


def _weighted() -> Iterator[Any]:
    for left, right in toy_batches():
        yield [(*left, 1.5), (*right, 0.5)]


def test_weights_are_multiplied_in_the_step() -> None:
    balanced = _learn(balance=lambda history: {"left": 1.5, "right": 0.5})
    assert _same(balanced, _learn(_weighted()))
    assert not _same(balanced, _learn())
    # What each task lost is told without the weights.
    assert balanced.history[0].losses == _learn().history[0].losses


def test_they_see_every_step_so_far() -> None:
    seen: list[list[int]] = []

    def balance(history: Any) -> dict[str, float]:
        seen.append([record.step for record in history])
        return {}

    assert _same(_learn(balance=balance), _learn())
    assert seen == [list(range(step)) for step in range(12)]


@pytest.mark.parametrize("at", [1, 7])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path, at: int) -> None:
    balance = worst_first({"left": 0.1, "right": 0.6})
    whole = _learn(balance=balance)
    assert not _same(whole, _learn())
    saving = Saving(tmp_path / "state.safetensors", key="this run")

    def interrupted() -> Iterator[Any]:
        yield from islice(toy_batches(), at)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _learn(interrupted(), balance=balance, saving=saving)
    resumed = _learn(balance=balance, saving=saving)
    assert _same(resumed, whole)
    assert resumed.history == whole.history


def test_the_loss_of_a_task_is_the_mean_of_its_items_by_weight() -> None:
    def twice() -> Iterator[Any]:
        for left, right in toy_batches():
            yield [(*left, 1.0), (*right, 1.0), ("left", right[1], 3.0)]

    model, base = toy_model(), toy_model().state_dict()
    learned = learn(model, base, toy_experts(base), twice(), toy_loss, steps=1, lr=0.05)
    left, right = next(toy_batches())
    start = toy_model()
    start.load_state_dict(learn(toy_model(), base, toy_experts(base), twice(), toy_loss, steps=0, lr=1.0).state_dict())
    with torch.no_grad():
        expected = (float(toy_loss(start, *left)) + 3 * float(toy_loss(start, "left", right[1]))) / 4
    assert learned.history[0].losses["left"] == pytest.approx(expected, abs=1e-6)
