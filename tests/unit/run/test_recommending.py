"""What is recommended: the best on held-back validation examples, unless a cheaper one is not told from it."""

from __future__ import annotations

import pytest
import torch

from supermerge.report.results import ModelResult, Recommendation
from supermerge.report.results import Score as Shown
from supermerge.run.recommending import Contender, ranked, recommended
from supermerge.tasks.metrics import metric
from supermerge.tasks.score import Score


def scored(hits: int, n: int = 200, name: str = "accuracy") -> Score:
    found = metric(name)
    logits = torch.tensor([[0.0, 1.0] if i < hits else [1.0, 0.0] for i in range(n)])
    found.update(logits, torch.ones(n, dtype=torch.long))
    return found.compute()


def contender(
    name: str, hits: dict[str, int], validation: float | None, seconds: float, metric: str = "accuracy"
) -> Contender:
    scores = {task: scored(count, name=metric) for task, count in hits.items()}
    shown = {
        task: Shown(metric=each.metric, value=each.value, low=each.low, high=each.high, n=each.n)
        for task, each in scores.items()
    }
    row = ModelResult(
        id=f"method:{name}", label=name, kind="method", scores=shown, seconds=seconds, validation=validation
    )
    return Contender(row, scores)


def choice(*contenders: Contender) -> Recommendation:
    found = recommended(contenders)
    assert found is not None
    return found


def test_the_best_on_validation_is_chosen_whatever_the_test_examples_say() -> None:
    good, other = contender("good", {"a": 150}, 0.8, 60), contender("other", {"a": 180}, 0.7, 90)
    found = choice(good, other)
    assert (found.model, found.runner_up) == ("method:good", "method:other")
    assert found.difference == pytest.approx(-0.15)
    assert found.n == 200
    assert found.reason.endswith("too few to choose on: give more validation examples.")
    assert found.reason.startswith("good scores best on the held-back validation examples (0.800; other 0.700).")


def test_a_real_difference_is_worth_its_cost() -> None:
    found = choice(contender("cheap", {"a": 120}, 0.6, 1), contender("dear", {"a": 160}, 0.8, 60))
    assert found.model == "method:dear"
    assert found.p is not None
    assert found.p <= 0.05
    assert found.low is not None
    assert found.low > 0
    assert found.reason.endswith("a significant difference.")


def test_without_a_significant_difference_the_cheaper_is_taken() -> None:
    found = choice(contender("dear", {"a": 160}, 0.8, 60), contender("cheap", {"a": 160}, 0.79, 2))
    assert (found.model, found.runner_up) == ("method:cheap", "method:dear")
    assert found.reason.endswith("no significant difference, so take the cheaper, cheap (2.0 s against 1 min 00 s).")


def test_the_better_one_is_taken_where_it_is_the_cheaper() -> None:
    found = choice(contender("quick", {"a": 160}, 0.8, 2), contender("slow", {"a": 160}, 0.79, 60))
    assert (found.model, found.runner_up) == ("method:quick", "method:slow")


def test_of_more_methods_only_the_two_best_on_validation_matter() -> None:
    others = [contender(f"m{i}", {"a": 190}, 0.5 - i / 100, 0.1) for i in range(3)]
    assert choice(*others, contender("x", {"a": 100}, 0.9, 9), contender("y", {"a": 150}, 0.6, 9)).runner_up == (
        "method:y"
    )


@pytest.mark.parametrize("other", [("b", None, "accuracy"), ("b", 0.7, "macro_f1")])
def test_without_validation_examples_or_a_common_metric_nothing_is_chosen(
    other: tuple[str, float | None, str],
) -> None:
    name, validation, kind = other
    assert recommended([contender("a", {"t": 100}, 0.8, 1), contender(name, {"t": 100}, validation, 1, kind)]) is None


def test_ranks_are_means_over_the_tasks() -> None:
    rows = [
        contender("a", {"t": 100, "u": 50}, None, 1).row,
        contender("b", {"t": 90, "u": 50}, None, 1).row,
        contender("c", {"t": 80, "u": 70}, None, 1).row,
        ModelResult(id="base", label="base", kind="base", scores=contender("d", {"t": 199}, None, 1).row.scores),
    ]
    # t: 1, 2, 3. u: c first, a and b share places 2 and 3.
    assert [row.rank for row in ranked(rows)] == [1.75, 2.25, 2.0, None]
