"""A recipe in, a finished directory out: what others can load, what is written, and that it is the same every time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import supermerge
from supermerge.assemble import merge
from supermerge.checkpoint import Checkpoint
from supermerge.errors import DataError
from supermerge.events import Event, subscribed
from supermerge.learn import Coefficients
from supermerge.recipe import Recipe
from supermerge.verify import verify

FEW = ["method.steps=6"]


def _run(tiny: Path, output: str, *overrides: str) -> supermerge.run.Result:
    return supermerge.run(Recipe.load(tiny / "recipe.yaml", [*FEW, *overrides]), output=tiny / output)


@pytest.fixture(scope="module")
def merged(tiny_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("merged") / "out"
    supermerge.run(Recipe.load(tiny_original / "recipe.yaml", FEW), output=directory)
    return directory


def test_everything_promised_is_there(merged: Path) -> None:
    expected = {
        "README.md",
        "charts",
        "coefficients.safetensors",
        "config.json",
        "heads",
        "metrics.json",
        "model.safetensors",
        "recipe.lock.json",
        "recipe.yaml",
        "report.html",
        "run.jsonl",
        "tokenizer.json",
    }
    assert expected <= {path.name for path in merged.iterdir()}
    assert {path.name for path in (merged / "heads").iterdir()} == {"topic", "mood"}
    events = [json.loads(line) for line in (merged / "run.jsonl").read_text().splitlines()]
    assert {"step", "evaluated", "phase_ended"} <= {event["event"] for event in events}
    assert verify(merged).tensors > 30


def test_the_card_names_no_place_on_this_machine(merged: Path, tiny_original: Path) -> None:
    card = (merged / "README.md").read_text()
    where = os.path.relpath((tiny_original / "base").resolve(), merged.resolve())
    assert f"| base | {where} |" in card.replace("\\", "")
    assert str(tiny_original) not in card
    assert str(tiny_original) not in (merged / "report.html").read_text()


def test_the_cost_of_the_report_is_counted(merged: Path) -> None:
    phases = json.loads((merged / "metrics.json").read_text())["cost"]["phases"]
    assert [phase["name"] for phase in phases][-2:] == ["scoring", "report"]


def test_transformers_loads_it_as_it_loads_the_base(merged: Path, tiny_original: Path) -> None:
    model, info = AutoModel.from_pretrained(merged, output_loading_info=True)
    _, of_base = AutoModel.from_pretrained(tiny_original / "base", output_loading_info=True)
    assert info["missing_keys"] == of_base["missing_keys"] == {"pooler.dense.bias", "pooler.dense.weight"}
    assert not info["unexpected_keys"]
    assert AutoTokenizer.from_pretrained(merged)("the dog").input_ids
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_load_gives_the_merged_backbone_with_the_experts_head(merged: Path, tiny_original: Path) -> None:
    inputs = AutoTokenizer.from_pretrained(merged)(["the dog was lovely", "a bus"], return_tensors="pt", padding=True)
    expert = AutoModelForSequenceClassification.from_pretrained(tiny_original / "experts" / "topic").eval()
    with Checkpoint.open(merged) as weights:
        backbone = {f"bert.{name}": weights.read(name) for name in weights.tensors}
    pooler = {name: p.clone() for name, p in expert.state_dict().items() if "pooler" in name}
    missing, unexpected = expert.load_state_dict({**backbone, **pooler}, strict=False)
    assert not unexpected
    assert set(missing) == {"classifier.weight", "classifier.bias"}
    model = supermerge.load(merged, task="topic")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expert(**inputs).logits, rtol=0, atol=0)


def test_weights_are_what_the_coefficients_say(tiny: Path) -> None:
    merged = _run(tiny, "out", "method.init=0.3").directory
    coefficients = Coefficients.load(merged / "coefficients.safetensors")
    base = Checkpoint.open(tiny / "base")
    experts = [Checkpoint.open(tiny / "experts" / name) for name in coefficients.experts]
    with Checkpoint.open(merged) as weights:
        for name in ("encoder.layer.0.attention.self.query.weight", "embeddings.word_embeddings.weight"):
            expected = base.read(name).clone()
            for c, expert in zip(coefficients.effective(name), experts, strict=True):
                expected += (expert.read(f"bert.{name}") - base.read(name)) * float(c)
            assert torch.equal(weights.read(name), expected)


def test_the_same_recipe_gives_the_same_bytes(merged: Path, tiny: Path) -> None:
    again = _run(tiny, "again").directory
    for name in ("model.safetensors", "coefficients.safetensors"):
        assert (again / name).read_bytes() == (merged / name).read_bytes()


def test_an_old_output_is_replaced_with_what_a_file_manager_left_in_it(merged: Path, tiny: Path) -> None:
    copied = shutil.copytree(merged, tiny / "old")
    (copied / ".DS_Store").write_bytes(b"where the icons are")
    supermerge.run(Recipe.load(tiny / "recipe.yaml", ["method=linear"]), output=copied, force=True)
    assert not (copied / ".DS_Store").exists()
    assert verify(copied).tensors


@pytest.mark.parametrize("granularity", ["row", "layer"])
def test_every_granularity_is_written_back_under_the_files_names(tiny: Path, granularity: str) -> None:
    result = _run(tiny, "out", f"method.granularity={granularity}")
    model = supermerge.load(result.directory)
    with Checkpoint.open(result.directory) as weights:
        assert all(torch.equal(weights.read(name), tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("loss", "stops_early"),
    [
        ("entropy", False),
        ("distill", True),
        ("features", True),
        ("{cross_entropy: 1, distill: 0.5, features: 0.1}", True),
    ],
)
def test_unlabelled_inputs_teach_too(tiny: Path, loss: str, stops_early: bool) -> None:
    data = [f"tasks.{task}.unlabelled={tiny}/data/{task}.valid.jsonl" for task in ("topic", "mood")]
    result = _run(tiny, "out", f"method.loss={loss}", *data)
    assert result.results.learning is not None
    learning, curve = result.results.learning, result.results.learning.curve
    assert len(curve) >= 6
    assert (learning.labelled, learning.unlabelled) == (64 if "cross_entropy" in loss else 0, 64)
    # Examples are held back, labelled or not, where the objective has a target that they can be measured against.
    assert all((point.held_back is not None) == stops_early for point in curve)


def test_tasks_may_be_weighted_by_their_distance_from_the_experts(tiny: Path) -> None:
    loss = "method.loss={cross_entropy: 1, features: 0.5}"
    curves = [
        _run(tiny, f"out-{balance}", loss, f"method.balance={balance}").results.learning
        for balance in ("equal", "worst")
    ]
    assert curves[0] is not None
    assert curves[1] is not None
    # Equal in the first step, and not any more in the second.
    assert curves[0].curve[0] == curves[1].curve[0]
    assert curves[0].curve[1].loss != curves[1].curve[1].loss


def test_no_labels_are_needed_where_the_experts_teach(tiny: Path) -> None:
    inputs = [f"tasks.{task}.unlabelled={tiny}/data/{task}.valid.jsonl" for task in ("topic", "mood")]
    without = [f"tasks.{task}.validation=null" for task in ("topic", "mood")]
    result = _run(tiny, "out", "method.loss=distill", *inputs, *without)
    assert result.results.learning is not None
    assert result.results.learning.curve[0].held_back is not None


def test_adamerging_is_the_same_engine(tiny: Path) -> None:
    data = [f"tasks.{task}.unlabelled={tiny}/data/{task}.valid.jsonl" for task in ("topic", "mood")]
    result = _run(tiny, "out", "method.name=adamerging", *data)
    assert result.results.learning is not None
    assert (result.results.learning.loss, result.results.learning.link) == ("entropy", "clamp")


@pytest.mark.parametrize("granularity", ["tensor", "layer", "row"])
@pytest.mark.parametrize("init", ["task_arithmetic", "iso_c", "ties"])
def test_learning_starts_at_a_methods_merge(tiny: Path, init: str, granularity: str) -> None:
    start = [f"method.init={init}", "method.steps=0", f"method.granularity={granularity}"]
    directory = _run(tiny, "out", *start).directory
    experts = {name: tiny / "experts" / name for name in ("topic", "mood")}
    expected = merge(tiny / "base", experts, init)
    with Checkpoint.open(directory) as weights:
        for name in weights.tensors:
            torch.testing.assert_close(weights.read(name), expected[name], rtol=0, atol=1e-6)
    found = Coefficients.load(directory / "coefficients.safetensors")
    assert found.experts == ("topic", "mood", f"start:{init}")
    assert not list(tiny.rglob("derived-*"))


def test_a_start_is_learned_further(tiny: Path) -> None:
    result = _run(tiny, "out", "method.init=iso_c")
    assert result.results.coefficients is not None
    assert result.results.coefficients.experts == ["topic", "mood", "start:iso_c"]
    found = Coefficients.load(result.directory / "coefficients.safetensors")
    moved = torch.stack([found.effective(name) - torch.tensor([0.0, 0.0, 0.5]) for name in found.groups])
    assert (moved.abs().amax(0) > 0.01).all()
    assert verify(result.directory).tensors > 30


def test_processed_task_vectors_are_learned_on(tiny: Path) -> None:
    directory = _run(tiny, "out", "method.on=ties", "method.steps=0").directory
    experts = {name: tiny / "experts" / name for name in ("topic", "mood")}
    expected = merge(tiny / "base", experts, "ties", scale=0.3, merge="sum")
    with Checkpoint.open(directory) as weights:
        for name in weights.tensors:
            torch.testing.assert_close(weights.read(name), expected[name], rtol=0, atol=1e-6)


def test_a_start_that_needs_statistics(tiny: Path) -> None:
    directory = _run(tiny, "out", "method.init=fisher", "method.steps=0").directory
    expected = _run(tiny, "fisher", "method={name: fisher}").directory
    with Checkpoint.open(directory) as weights, Checkpoint.open(expected) as other:
        for name in weights.tensors:
            torch.testing.assert_close(weights.read(name), other.read(name), rtol=0, atol=1e-6)


def test_a_merge_without_data_equals_the_library(tiny: Path) -> None:
    recipe = Recipe.load(tiny / "recipe.yaml", ["method={name: task_arithmetic, scale: 0.4}"])
    result = supermerge.run(recipe, output=tiny / "out")
    experts = {name: tiny / "experts" / name for name in ("topic", "mood")}
    expected = merge(tiny / "base", experts, "task_arithmetic", scale=0.4)
    with Checkpoint.open(result.directory) as weights:
        assert set(weights.tensors) == set(expected)
        assert all(torch.equal(weights.read(name), tensor) for name, tensor in expected.items())


def test_compare_scores_every_method_on_the_same_rows(tiny: Path) -> None:
    recipe = Recipe.load(tiny / "recipe.yaml", FEW)
    result = supermerge.compare(recipe, ["linear", "task_arithmetic", "supermerge"], output=tiny / "comparison")
    models = {model.id: model for model in result.results.models}
    assert set(models) == {
        "base",
        "expert:topic",
        "expert:mood",
        "method:linear",
        "method:task_arithmetic",
        "method:supermerge",
    }
    assert all(score.n == 100 for model in models.values() for score in model.scores.values())
    assert 0 < models["method:task_arithmetic"].settings["scale"] <= 1.5
    methods = [model for model in result.results.models if model.kind == "method"]
    assert sum(model.rank or 0 for model in methods) == 1 + 2 + 3
    assert all(model.validation is not None and (model.seconds or 0) > 0 for model in methods)
    chosen = result.results.recommendation
    assert chosen is not None
    best = sorted((model.validation or 0 for model in methods), reverse=True)[:2]
    pair = [models[chosen.model].validation, models[chosen.runner_up or ""].validation]
    assert sorted(pair, reverse=True) == best
    assert chosen.n == 200
    assert chosen.reason in (result.directory / "report.html").read_text()
    assert not list(result.directory.glob("*.safetensors"))


def test_a_comparison_without_validation_examples_recommends_nothing(tiny: Path) -> None:
    without = [f"tasks.{task}.validation=null" for task in ("topic", "mood")]
    recipe = Recipe.load(tiny / "recipe.yaml", ["method=linear", *without])
    result = supermerge.compare(recipe, ["linear", "task_arithmetic"], output=tiny / "comparison")
    assert result.results.recommendation is None
    assert [model.validation for model in result.results.models] == [None] * 5


def test_compare_says_at_once_what_a_method_has_nothing_to_learn_from(tiny: Path) -> None:
    events: list[Event] = []
    with subscribed(events.append), pytest.raises(DataError, match="loss entropy needs unlabelled examples"):
        supermerge.compare(tiny / "recipe.yaml", ["linear", "adamerging"], output=tiny / "comparison")
    assert not [event for event in events if event.kind == "evaluated"]
    assert not (tiny / "comparison").exists()


def test_evaluate_gives_the_scores_of_the_run(merged: Path, tiny_original: Path) -> None:
    scores = supermerge.evaluate(merged, tiny_original / "recipe.yaml")
    metrics = json.loads((merged / "metrics.json").read_text())
    written = next(model for model in metrics["models"] if model["id"] == "merged")["scores"]
    assert {task: score.value for task, score in scores.items()} == {
        task: score["value"] for task, score in written.items()
    }


def test_test_rows_change_nothing_that_is_learned(merged: Path, tiny: Path) -> None:
    for task in ("topic", "mood"):
        path = tiny / "data" / f"{task}.test.jsonl"
        path.write_text("\n".join(path.read_text().splitlines()[:20]) + "\n")
    again = _run(tiny, "again").directory
    assert (again / "coefficients.safetensors").read_bytes() == (merged / "coefficients.safetensors").read_bytes()
