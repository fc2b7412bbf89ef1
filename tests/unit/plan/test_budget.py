"""What a plan makes of `memory`: where task vectors lie, how many threads merge, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supermerge.assemble.footprint import held_by, threads_within
from supermerge.assemble.workers import at_most_threads, default_threads
from supermerge.errors import ResourceError
from supermerge.plan import Plan, plan

EXPERTS = 2 * 2 * 8 * 4 * 4
"""Bytes of the two experts' merged tensors."""


@pytest.fixture
def recipe(tmp_path: Path, write_models: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_models(tmp_path, "news", "spam")
    module = sys.modules["supermerge.plan.plan"]
    monkeypatch.setattr(module, "resident_bytes", lambda: 1000)
    monkeypatch.setattr(module, "available_bytes", lambda: 10**12)
    monkeypatch.setattr(module, "model_class_bytes", lambda: 0)
    # What pages take is more than these models.
    monkeypatch.setattr(sys.modules["supermerge.plan.phases"], "report_bytes", lambda pictures: 0)
    return {
        "base": str(tmp_path / "base"),
        "experts": {name: str(tmp_path / name) for name in ("news", "spam")},
        "method": {"name": "supermerge", "steps": 7, "init": 0.3},
        "tasks": {"news": {"type": "text-classification", "validation": "v.jsonl"}},
    }


@pytest.fixture
def learning(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same where learning is what needs most: of models this small it would be merging."""
    monkeypatch.setattr(sys.modules["supermerge.plan.memory"], "held_by", lambda threads, costs: 0)
    return recipe


def test_task_vectors_lie_where_they_fit(learning: dict[str, Any]) -> None:
    memory, disk = (
        plan({**learning, "method": {**learning["method"], "residency": where}}).peak_memory
        for where in ("memory", "disk")
    )
    assert memory - disk == EXPERTS
    roomy, tight = plan({**learning, "memory": memory}), plan({**learning, "memory": memory - 1})
    assert (roomy.residency, roomy.peak_memory, roomy.refusals) == ("memory", memory, ())
    assert (tight.residency, tight.peak_memory, tight.refusals) == ("disk", disk, ())
    reads = {one.name: one.step_reads for one in tight.residencies}
    assert (reads["memory"], reads["disk"], reads["int8"]) == (0, EXPERTS, 0)
    assert [one.name for one in tight.residencies if not one.exact] == ["bf16", "int8", "tvq4", "rtvq"]


@pytest.mark.parametrize(("where", "exact"), [("memory", True), ("disk", True), ("int8", False), ("tvq2", False)])
def test_what_is_compressed_is_not_exact(learning: dict[str, Any], where: str, exact: bool) -> None:
    planned = plan({**learning, "method": {**learning["method"], "residency": where}, "memory": "1MB"})
    assert [(one.name, one.exact) for one in planned.residencies] == [(where, exact)]


def test_a_recipe_that_says_where_is_obeyed(learning: dict[str, Any]) -> None:
    method = {**learning["method"], "residency": "memory"}
    planned = plan({**learning, "method": method})
    with pytest.raises(ResourceError, match=r"the run needs about .*, and the recipe allows"):
        plan({**learning, "method": method, "memory": planned.peak_memory - 1}).require_feasible()


def test_what_cannot_fit_says_what_the_least_needs(learning: dict[str, Any]) -> None:
    planned = plan({**learning, "memory": 1000})
    assert planned.peak_memory == min(one.holds for one in planned.residencies)
    with pytest.raises(ResourceError, match=rf"residency {planned.residency}, the least\), and the recipe allows 1 kB"):
        planned.require_feasible()


def test_without_a_budget_nothing_is_kept(learning: dict[str, Any]) -> None:
    assert plan(learning).residency == "disk"


def test_fewer_threads_merge_where_there_is_less_room() -> None:
    costs = [100.0, 80.0, 60.0, 1.0]
    assert [held_by(n, costs) for n in (1, 2, 3)] == [100, 180, 240]
    with at_most_threads(3):
        assert default_threads() <= 3
    assert [threads_within(room, costs) for room in (1000, 180, 179, 10)] == [default_threads(), 2, 1, 1]
    with at_most_threads(1):
        assert threads_within(1000, costs) == 1


def test_a_merge_within_little_room(recipe: dict[str, Any]) -> None:
    data_free = {**recipe, "method": "linear", "tasks": {}}
    roomy = plan(data_free)
    assert roomy.threads == default_threads()
    tight = plan({**data_free, "memory": roomy.peak_memory - 1})
    assert (tight.threads, tight.refusals) == (1, ())
    assert tight.peak_memory < roomy.peak_memory


def test_several_processes_hold_a_model_together_that_is_too_large_for_one(
    learning: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of models this small, the blocks that travel are the whole model.
    monkeypatch.setattr(sys.modules["supermerge.plan.learning"], "gathered_bytes", lambda match: 0)

    def planned(residency: str = "auto", **more: Any) -> Plan:
        return plan({**learning, "method": {**learning["method"], "residency": residency}, **more})

    alone = planned("sharded")
    assert (alone.residency, alone.peak_memory) == ("disk", planned("disk").peak_memory)
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    whole, sharded = planned("disk"), planned("sharded")
    assert whole.residency == "disk"
    assert (sharded.residency, sharded.peak_memory < whole.peak_memory) == ("sharded", True)
    # Its rows of model and gradients, and what scoring needs.
    assert sharded.peak_memory - 1000 < (whole.peak_memory - 1000) / 2
    roomy, tight = (planned(memory=whole.peak_memory - less) for less in (0, 1))
    assert (roomy.residency, tight.residency) == ("disk", "sharded")
    assert tight.peak_memory == sharded.peak_memory
    assert planned(memory=sharded.peak_memory - 1).refusals
    # What is free is shared by the processes of one machine.
    monkeypatch.setattr(sys.modules["supermerge.plan.plan"], "available_bytes", lambda: whole.peak_memory)
    assert planned().residency == "sharded"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert planned().residency == "disk"
