"""A recipe's `memory` holds for the commands beside `run` too: what fits is done so, what cannot is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import supermerge
from supermerge.assemble.workers import default_threads
from supermerge.checkpoint import Checkpoint
from supermerge.errors import ResourceError
from supermerge.events import Event, subscribed
from supermerge.plan import plan
from supermerge.plan.comparison import room_to_compare, room_to_score
from supermerge.recipe import Recipe
from supermerge.run.checking import check
from supermerge.run.growing import add
from supermerge.tasks.workbench import Workbench

METHODS = ["linear", "supermerge"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds nothing before it has seen a model, which is then all that counts."""
    for module in ("supermerge.plan.plan", "supermerge.plan.comparison"):
        monkeypatch.setattr(sys.modules[module], "resident_bytes", lambda: 1000)
        monkeypatch.setattr(sys.modules[module], "model_class_bytes", lambda: 0)
    monkeypatch.setattr(sys.modules["supermerge.plan.phases"], "report_bytes", lambda pictures: 0)
    monkeypatch.setattr(sys.modules["supermerge.plan.memory"], "held_by", lambda threads, costs: 0)


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """(Whether the model lay in a file, whether it had weights) of every workbench that was made."""
    made: list[tuple[bool, bool]] = []
    inner = Workbench.__init__

    def init(self: Workbench, *args: Any, **more: Any) -> None:
        made.append((more.get("offload") is not None, more.get("weights", True)))
        inner(self, *args, **more)

    monkeypatch.setattr(Workbench, "__init__", init)
    return made


def recipe(tiny: Path, **more: object) -> Recipe:
    settings = [f"{name}={value}" for name, value in more.items()]
    return Recipe.load(tiny / "recipe.yaml", ["method.steps=2", "if_worse=warn", *settings])


def least(wanted: Recipe, residency: str) -> int:
    """What learning needs, with the task vectors, or the model too, on the disk."""
    params = {**wanted.method.params, "residency": residency}
    method = type(wanted.method).model_validate({"name": "supermerge", **params})
    return plan(wanted.model_copy(update={"method": method})).peak_memory


@pytest.mark.usefixtures("small")
def test_a_comparison_has_the_model_where_the_largest_method_needs_it(tiny: Path) -> None:
    wanted = recipe(tiny)
    merge = plan(wanted).models[0].bytes
    disk, offload = (least(wanted, each) + merge for each in ("disk", "offload"))
    assert offload < disk
    assert room_to_compare(wanted, METHODS).residency is None
    rooms = [room_to_compare(recipe(tiny, memory=memory), METHODS).residency for memory in (disk, disk - 1, offload)]
    assert rooms == ["disk", "offload", "offload"]
    with pytest.raises(ResourceError, match=r"memory: comparing supermerge needs about .* of which .* for its merge"):
        room_to_compare(recipe(tiny, memory=offload - 1), METHODS)


@pytest.mark.usefixtures("small")
def test_scoring_has_the_model_in_a_file_where_memory_is_short(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["supermerge.plan.comparison"], "activations", lambda recipe, sources: None)
    with Checkpoint.open(tiny / "base") as base:
        sizes = [4 * info.numel for info in base.tensors.values()]
    # What the process holds, a tensor that is read, and the model, or the largest of its weights.
    memory, offload = (1000 + max(sizes) + model for model in (sum(sizes), max(sizes)))
    assert room_to_score(recipe(tiny)) is None
    assert room_to_score(recipe(tiny, memory=memory)) is None
    assert room_to_score(recipe(tiny, memory=memory - 1)) == "offload"
    assert room_to_score(recipe(tiny, memory=offload)) == "offload"
    with pytest.raises(ResourceError, match=r"memory: scoring needs about .*\(residency offload, the least\)"):
        room_to_score(recipe(tiny, memory=offload - 1))


def test_compare_and_evaluate_do_as_planned_with_the_same_scores(
    tiny: Path, benches: list[tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = supermerge.compare(recipe(tiny), METHODS, output=tiny / "free")
    scores = supermerge.evaluate(tiny / "base", recipe(tiny))
    monkeypatch.setattr(sys.modules["supermerge.plan.residency"], "_ladder", lambda recipe, settings: ["offload"])
    monkeypatch.setattr(sys.modules["supermerge.plan.comparison"], "model_bytes", lambda match: 10**12)
    tight = supermerge.compare(recipe(tiny, memory="4GB"), METHODS, output=tiny / "tight")
    assert supermerge.evaluate(tiny / "base", recipe(tiny, memory="4GB")) == scores
    assert benches == [(False, True), (False, True), (True, True), (True, True)]
    values = [[{t: s.value for t, s in row.scores.items()} for row in r.results.models] for r in (free, tight)]
    assert values[0] == values[1]


def test_a_check_needs_no_weights_and_has_the_plans_threads(tiny: Path, benches: list[tuple[bool, bool]]) -> None:
    merged = supermerge.run(recipe(tiny, memory="4GB"), output=tiny / "merged").directory
    benches.clear()
    threads: list[int] = []

    def see(event: Event) -> None:
        if event.kind == "phase_started" and event.fields["phase"] == "building":
            threads.append(default_threads())

    with pytest.MonkeyPatch.context() as patch, subscribed(see):
        patch.setattr(sys.modules["supermerge.plan.memory"], "threads_within", lambda room, costs: 1)
        assert check(merged)
    assert benches == [(False, False)]
    assert threads == [1]


def test_adding_an_expert_is_refused_where_it_does_not_fit(tiny: Path) -> None:
    merged = supermerge.run(recipe(tiny), output=tiny / "merged").directory
    other = tiny / "experts" / "mood2"
    shutil.copytree(tiny / "experts" / "mood", other)
    tensors = {name: tensor * 1.001 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    task = f"{{type: text-classification, expert: mood2, validation: {tiny / 'data' / 'mood.valid.jsonl'}}}"
    more = recipe(tiny, memory="1MB", **{"experts.mood2": str(other), "tasks.mood2": task})
    with pytest.raises(ResourceError, match=r"memory: the run needs about .* and the recipe allows 1 MB"):
        add(merged, "mood2", str(other), recipe=more)
