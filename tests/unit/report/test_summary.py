from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from supermerge.report import Provenance, Results
from supermerge.report.summary import best_merged, direction, expert_names, own_expert, score_rows, title, verdict

Scored = dict[str, dict[str, float]]
LABELS = {"base": "Base", "merged": "Merged"}


@pytest.fixture
def run(build: Callable[..., Results]) -> Callable[..., Results]:
    """`run({"base": {"a": 0.5}, "expert:a": …}, a=False)`: these models' scores ± 0.01; False: lower is better."""

    def run(scored: Scored, **higher: bool) -> Results:
        tasks = {task: {"type": "custom", "metric": "m", "n_test": 9, "n_validation": 9} for task in "ab"}
        for task, better in higher.items():
            tasks[task]["higher_is_better"] = better
        models: list[dict[str, Any]] = []
        for id_, values in scored.items():
            scores = {
                t: {"metric": "m", "value": v, "low": v - 0.01, "high": v + 0.01, "n": 9} for t, v in values.items()
            }
            mean = sum(values.values()) / len(values) if len(values) == 2 else None
            kind = id_.partition(":")[0]
            models.append({"id": id_, "label": LABELS.get(id_, id_), "kind": kind, "scores": scores, "mean": mean})
        return build(tasks=tasks, models=models, recommendation=None, coefficients=None, geometry=None)

    return run


BASE: Scored = {"base": {"a": 0.5, "b": 0.6}}
EXPERTS: Scored = {"expert:a": {"a": 0.9, "b": 0.2}, "expert:b": {"a": 0.3, "b": 0.8}}


def test_rows_are_base_experts_merged_methods(results: Results) -> None:
    rows = score_rows(results)
    assert [row.kind for row in rows] == ["base", "expert", "merged", "method", "method", "method", "method"]
    assert rows[1].scores["spam"].value == pytest.approx(0.985, abs=1e-3)
    assert rows[1].mean == pytest.approx((0.704 + 0.957 + 0.783 + 0.985) / 4, abs=1e-3)


def test_experts_have_no_mean_when_one_is_missing(run: Callable[..., Results]) -> None:
    rows = score_rows(run({**BASE, "expert:a": {"a": 0.9}}))
    assert rows[1].mean is None
    assert rows[1].normalised is None


def test_equal_labels_are_told_apart(run: Callable[..., Results]) -> None:
    results = run({"method:x": {"a": 1, "b": 1}, "method:y": {"a": 1, "b": 1}})
    same = results.model_copy(update={"models": [m.model_copy(update={"label": "L"}) for m in results.models]})
    assert [row.label for row in score_rows(same)] == ["L (method:x)", "L (method:y)"]


def test_a_tasks_expert_is_named_by_it_or_like_it_or_the_best(run: Callable[..., Results]) -> None:
    results = run({**EXPERTS, "expert:c": {"a": 0.95, "b": 0.1}})
    found = own_expert(results, "a")
    assert found is not None
    assert found.id == "expert:a"
    named = results.tasks["a"].model_copy(update={"expert": "c"})
    found = own_expert(results.model_copy(update={"tasks": {**results.tasks, "a": named}}), "a")
    assert found is not None
    assert found.id == "expert:c"
    found = own_expert(run({"expert:x": {"a": 0.1}, "expert:y": {"a": 0.2}}), "a")
    assert found is not None
    assert found.id == "expert:y"
    found = own_expert(run({"expert:x": {"a": 0.1}, "expert:y": {"a": 0.2}}, a=False), "a")
    assert found is not None
    assert found.id == "expert:x"


def test_better_everywhere(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, **EXPERTS, "merged": {"a": 0.88, "b": 0.79}, "method:x": {"a": 0.6, "b": 0.6}}))
    assert found.good is True
    assert found.headline == "Better than the base on every task"
    assert found.sentences == [
        "It beats the base on 2 of 2 tasks, all of them by more than the 95 % intervals.",
        "It is not clearly behind the expert on any task.",
        "Its mean score is the best of the 2 methods compared.",
    ]


def test_behind_an_expert_and_another_method(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, **EXPERTS, "merged": {"a": 0.7, "b": 0.605}, "method:x": {"a": 0.8, "b": 0.8}}))
    assert found.sentences == [
        "It beats the base on 2 of 2 tasks, 1 of them by more than the 95 % intervals.",
        "It is clearly behind the expert on a and b.",
        "method:x has a better mean score.",
    ]


def test_worse_on_average(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, "merged": {"a": 0.51, "b": 0.2}}))
    assert (found.good, found.headline) == (False, "Worse than the base on average")


def test_clearly_worse_on_one_task(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, "merged": {"a": 0.9, "b": 0.5}}))
    assert (found.good, found.headline) == (False, "Better than the base on average, worse on b")


def test_hardly_worse_on_one_task_is_no_alarm(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, "merged": {"a": 0.9, "b": 0.599}}))
    assert (found.good, found.headline) == (None, "Better than the base on average, worse on b")


def test_the_same_as_the_base(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, "merged": BASE["base"]}))
    assert (found.good, found.headline) == (None, "No worse than the base on any task")
    assert found.sentences == ["It beats the base on 0 of 2 tasks."]


def test_lower_can_be_better(run: Callable[..., Results]) -> None:
    scored = {**BASE, "merged": {"a": 0.4, "b": 0.5}, "method:x": {"a": 0.45, "b": 0.55}}
    found = verdict(run(scored, a=False, b=False))
    assert (found.good, found.headline) == (True, "Better than the base on every task")
    assert found.sentences[-1] == "Its mean score is the best of the 2 methods compared."
    assert best_merged(run(scored, a=False, b=False), "a") == {"merged"}


def test_a_mean_over_opposite_metrics_decides_nothing(run: Callable[..., Results]) -> None:
    results = run({**BASE, **EXPERTS, "merged": {"a": 0.4, "b": 0.3}, "method:x": {"a": 0.9, "b": 0.9}}, a=False)
    assert direction(results) is None
    assert verdict(results).headline == "Worse than the base on b"
    assert not any("mean" in sentence for sentence in verdict(results).sentences)
    assert score_rows(results)[1].mean is None


def test_a_comparison_without_merged_model_names_the_best_method(run: Callable[..., Results]) -> None:
    found = verdict(run({**BASE, "method:x": {"a": 0.6, "b": 0.6}, "method:y": {"a": 0.7, "b": 0.6}}))
    assert (found.good, found.headline) == (None, "method:y has the best mean score")


def test_without_scores(empty: Results) -> None:
    assert score_rows(empty) == []
    assert verdict(empty).headline == "Not scored"


def test_best_merge_of_a_task(results: Results, run: Callable[..., Results]) -> None:
    assert best_merged(results, "spam") == {"merged"}
    assert best_merged(run({"merged": {"a": 0.5}, "method:x": {"a": 0.5}}), "a") == {"merged", "method:x"}
    assert best_merged(run({"merged": {"a": 0.5}}), "a") == set()


def test_title_and_experts(results: Results, empty: Results, provenance: Provenance) -> None:
    assert title(results, provenance) == "4 experts merged by SuperMerge"
    assert title(results, None) == "4 experts merged by supermerge"
    without = [model for model in results.models if model.kind != "merged"]
    methods = sum(model.kind == "method" for model in without)
    compared = results.model_copy(update={"models": without})
    assert title(compared, provenance) == f"{methods} ways to merge 4 experts"
    assert title(empty, None) == "Merged by supermerge"
    assert title(empty, Provenance("b", {"one": "path"})) == "1 expert merged by supermerge"
    assert expert_names(results, None) == ["newsgroups", "reuters", "reviews", "spam"]
