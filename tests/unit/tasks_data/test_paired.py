"""The paired comparison of two models on the same examples."""

from __future__ import annotations

import math

import pytest
import torch

from supermerge.tasks.metrics import metric
from supermerge.tasks.paired import difference
from supermerge.tasks.score import Score


def accuracy(hits: list[bool]) -> Score:
    found = metric("accuracy")
    logits = torch.tensor([[0.0, 1.0] if hit else [1.0, 0.0] for hit in hits])
    found.update(logits, torch.ones(len(hits), dtype=torch.long))
    return found.compute()


def test_a_model_against_itself() -> None:
    score = accuracy([True, False, True, True])
    same = difference({"a": score}, {"a": score})
    assert (same.value, same.low, same.high, same.p, same.n) == (0, 0, 0, 1, 4)
    assert not same.significant


def test_pairs_see_what_intervals_do_not() -> None:
    # 60 and 65 of 100, the same 60 among them: the intervals overlap, and no resample is worse.
    ours, theirs = accuracy([i < 65 for i in range(100)]), accuracy([i < 60 for i in range(100)])
    assert ours.low < theirs.high
    found = difference({"a": ours}, {"a": theirs})
    assert found.value == pytest.approx(0.05)
    assert found.low > 0
    assert found.significant
    turned = difference({"a": theirs}, {"a": ours})
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert turned.p == found.p


def test_the_interval_is_the_normal_one() -> None:
    draw = torch.Generator().manual_seed(0)
    ours, theirs = torch.rand(400, generator=draw) < 0.7, torch.rand(400, generator=draw) < 0.6
    found = difference({"a": accuracy(ours.tolist())}, {"a": accuracy(theirs.tolist())})
    pairs = ours.double() - theirs.double()
    half = 1.96 * float(pairs.std()) / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.006)


def test_tasks_are_not_paired_with_each_other() -> None:
    # Examples of two tasks that go together by chance of their order: as if each task were drawn on its own.
    hits = [i % 2 == 0 for i in range(200)]
    one = difference({"a": accuracy(hits)}, {"a": accuracy([False] * 200)})
    both = difference(
        {"a": accuracy(hits), "b": accuracy(hits)}, {"a": accuracy([False] * 200), "b": accuracy([False] * 200)}
    )
    assert both.n == 400
    assert both.high - both.low == pytest.approx((one.high - one.low) / math.sqrt(2), rel=0.1)


def test_where_less_is_better_a_smaller_value_counts_for_a_model() -> None:
    def perplexity(loss: float) -> Score:
        found = metric("perplexity")
        logits = torch.zeros(3, 2, 2)
        logits[..., 0] = loss
        found.update(logits, torch.ones(3, 2, dtype=torch.long))
        return found.compute()

    assert difference({"a": perplexity(0.1)}, {"a": perplexity(0.5)}).value > 0


def test_every_metric_gives_its_resamples_alike() -> None:
    for name in ("accuracy", "macro_f1", "mcc"):
        found = metric(name)
        found.update(torch.eye(3).repeat(4, 1), torch.arange(12) % 3)
        assert set(found.compute().resampled) == {1.0}
    match = metric("exact_match")
    match.update(["a", "b"], ["a", "c"])
    assert set(match.compute().resampled) == {0.0, 0.5, 1.0}
