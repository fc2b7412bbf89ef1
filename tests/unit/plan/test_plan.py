from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supermerge.errors import CheckpointError, RecipeError, ResourceError
from supermerge.plan import Plan, plan

PARAMETERS = 2 * 8 * 4


@pytest.fixture
def models(tmp_path: Path, write_models: Callable[..., None]) -> dict[str, Any]:
    write_models(tmp_path, "news", "spam")
    return {"base": str(tmp_path / "base"), "experts": {name: str(tmp_path / name) for name in ("news", "spam")}}


def phases(planned: Plan) -> dict[str, tuple[int, int]]:
    """name -> (bytes read, bytes written)."""
    return {phase.name: (phase.reads, phase.writes) for phase in planned.phases}


def test_a_data_free_merge(models: dict[str, Any], tmp_path: Path) -> None:
    planned = plan({**models, "method": "linear", "output": {"path": str(tmp_path / "merged")}})
    assert (planned.merged, planned.copied, planned.heads) == (2, 1, {"news": 1, "spam": 1})
    assert (planned.coefficients, planned.steps, planned.residency) == (None, None, None)
    base, heads = PARAMETERS * 4 + 8, 2 * 2 * 4 * 4
    assert planned.output_bytes == base + heads
    assert list(phases(planned)) == ["merge", "report"]
    assert phases(planned)["merge"] == (base + 2 * PARAMETERS * 4, planned.output_bytes)
    assert planned.activations == "none"
    assert planned.refusals == ()
    assert [(model.name, model.tensors) for model in planned.models] == [("base", 3), ("news", 4), ("spam", 4)]


def test_surveys_read_again(models: dict[str, Any]) -> None:
    for zero_sign, passes in (("majority", 2), ("positive", 1)):
        planned = plan({**models, "method": {"name": "ties", "zero_sign": zero_sign}})
        assert phases(planned)["survey"][0] == passes * phases(planned)["merge"][0]
    assert "survey" not in phases(plan({**models, "method": {"name": "ties", "trim": "tensor"}}))


def test_vectors_that_no_expert_has_are_made_first(models: dict[str, Any]) -> None:
    tasks = {"news": {"type": "text-classification", "validation": "v.jsonl"}}

    def planned(**method: Any) -> Plan:
        return plan({**models, "method": {"name": "supermerge", "steps": 7, **method}, "tasks": tasks})

    base, model = PARAMETERS * 4 + 8, PARAMETERS * 4
    stored = base + 2 * model
    started = planned(init="ties")
    # TIES reads all twice for its thresholds and once to merge, and again for the merge of what was learned.
    assert list(phases(started))[:4] == ["derive", "learn", "survey", "merge"]
    assert phases(started)["derive"] == (3 * stored, model)
    assert phases(started)["learn"] == (base + 3 * model * (1 + 7), 0)
    assert phases(started)["survey"] == (2 * stored, 0)
    assert started.coefficients == 6
    processed = planned(on="tsv_m")
    assert phases(processed)["derive"] == (stored, 2 * model)
    assert phases(processed)["learn"] == (base + 2 * model * (1 + 7), 0)
    assert processed.coefficients == 4
    both = planned(on="tsv_m", init="iso_c")
    assert phases(both)["derive"] == (stored, 3 * model)
    words = next(phase.what for phase in both.phases if phase.name == "derive")
    assert words == "task vectors of tsv_m and the merge of iso_c to start from"
    statistics = next(phase.what for phase in planned(init="regmean").phases if phase.name == "statistics")
    assert statistics == "gram"
    assert "derive" not in phases(planned(init="average"))


def test_what_learning_makes_must_fit_on_the_disk(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["supermerge.plan.plan"], "free_disk_bytes", lambda _: 10_000_900)
    tasks = {"news": {"type": "text-classification", "validation": "v.jsonl"}}
    recipe = {**models, "method": {"name": "supermerge", "on": "tsv_m", "init": "iso_c"}, "tasks": tasks}
    assert plan({**recipe, "method": "supermerge"}).refusals == ()
    # Three models in fp32 lie there while one more is written.
    assert "disk: the run needs" in "".join(plan(recipe).refusals)


def test_output_dtype_changes_what_is_written(models: dict[str, Any]) -> None:
    planned = plan({**models, "method": "linear", "output": {"dtype": "bfloat16"}})
    assert planned.output_bytes == PARAMETERS * 2 + 8 + 2 * 2 * 4 * 4


def test_learning_reads_every_task_vector_in_every_step(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["supermerge.plan.plan"], "resident_bytes", lambda: 0)
    tasks = {"news": {"type": "text-classification", "validation": "v.jsonl", "test": "t.jsonl"}}
    recipe = {**models, "method": {"name": "supermerge", "init": 0.3, "steps": 7}, "tasks": tasks}
    planned = plan(recipe)
    assert list(phases(planned)) == ["learn", "merge", "evaluate", "report"]
    experts = 2 * PARAMETERS * 4
    assert phases(planned)["learn"] == (PARAMETERS * 4 + 8 + experts * (1 + 7), 0)
    assert (planned.coefficients, planned.steps, planned.residency) == (4, 7, "disk")
    assert (planned.activations, planned.seconds) == ("unknown", None)
    resident = plan({**recipe, "method": {"name": "supermerge", "init": 0.3, "steps": 7, "residency": "memory"}})
    assert phases(resident)["learn"] == (PARAMETERS * 4 + 8 + experts, 0)
    assert resident.residency == "memory"
    compressed = plan({**recipe, "method": {"name": "supermerge", "init": 0.3, "steps": 7, "residency": "rtvq"}})
    assert phases(compressed)["learn"] == (PARAMETERS * 4 + 8 + 2 * experts, 0)
    learning = [each.phases[0].holds for each in (planned, compressed, resident)]
    assert learning[1] - learning[0] == 2 * PARAMETERS * (2 + 3 / 2) / 8
    assert learning[2] - learning[0] == experts


def test_the_model_is_gone_before_the_report_is_written(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, nothing in (
        ("plan", "resident_bytes", lambda: 0),
        ("plan", "model_class_bytes", lambda: 0),
        ("phases", "report_bytes", lambda pictures: 0),
    ):
        monkeypatch.setattr(sys.modules[f"supermerge.plan.{module}"], name, nothing)
    tasks = {"news": {"type": "text-classification", "validation": "v.jsonl", "test": "t.jsonl"}}
    planned = plan({**models, "method": {"name": "supermerge", "steps": 7}, "tasks": tasks})
    holds = {phase.name: phase.holds for phase in planned.phases}
    assert holds["evaluate"] >= PARAMETERS * 4
    assert holds["report"] == 0


def test_is_json(models: dict[str, Any]) -> None:
    planned = plan({**models, "method": "ties"})
    assert json.loads(json.dumps(planned.to_json()))["phases"][0]["name"] == "survey"


def test_refuses_what_does_not_fit(models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {**models, "method": "linear"}
    with pytest.raises(ResourceError, match="the recipe allows 1 MB"):
        plan({**recipe, "memory": "1MB"}).require_feasible()
    with pytest.raises(ResourceError, match="exists already"):
        plan(recipe, output=tmp_path).require_feasible()
    plan(recipe, output=tmp_path, force=True).require_feasible()
    # By its name in sys.modules: `supermerge.plan.plan` is the function.
    module = sys.modules["supermerge.plan.plan"]
    monkeypatch.setattr(module, "free_disk_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match=r"disk: the run needs .* and 1 kB are free"):
        plan(recipe).require_feasible()
    monkeypatch.setattr(module, "available_bytes", lambda: 0)
    with pytest.raises(ResourceError) as caught:
        plan(recipe, output=tmp_path).require_feasible()
    assert [line.split(":")[0] for line in caught.value.message.splitlines()] == ["memory", "disk", str(tmp_path)]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"method": "tise"}, RecipeError, "Did you mean 'ties'"),
        ({"method": {"name": "ties", "densty": 0.5}}, RecipeError, "unknown parameter 'densty'"),
        ({"method": {"name": "ties", "density": 2}}, RecipeError, "density"),
        ({"method": {"name": "supermerge", "step": 3}}, RecipeError, "unknown parameter 'step'"),
        ({"rules": [{"match": "*", "method": "supermerge"}]}, RecipeError, "asks for supermerge, which learns"),
        ({"experts": {"a": {"adapter": "/nowhere/x"}}}, CheckpointError, "/nowhere/x"),
        ({"base": "/nowhere/base"}, CheckpointError, "/nowhere/base"),
    ],
)
def test_checks_what_the_words_name(
    models: dict[str, Any], change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        plan({**models, "method": "linear", **change})


def test_parameters_of_experts(models: dict[str, Any]) -> None:
    experts = {name: {"model": path, "weight": 1.0} for name, path in models["experts"].items()}
    experts["news"]["density"] = 0.9
    plan({**models, "experts": experts, "method": "ties"})
    with pytest.raises(RecipeError, match="density"):
        plan({**models, "experts": experts, "method": "linear"})
    with pytest.raises(RecipeError, match=r"experts\.news\.weight: supermerge learns its coefficients"):
        plan({**models, "experts": experts, "method": "supermerge"})
