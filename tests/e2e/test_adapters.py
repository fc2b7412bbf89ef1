"""An expert that is an adapter with a head of its own, through every command: as its dense equivalent."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from supermerge import compare, evaluate, load, run
from supermerge.checkpoint import Checkpoint, open_expert
from supermerge.lock import Lock
from supermerge.recipe import Recipe
from supermerge.run.checking import check
from supermerge.run.doctor import doctor
from supermerge.verify import verify

SETTINGS = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 4,
    "target_modules": ["query", "value"],
    "modules_to_save": ["classifier", "pooler"],
    "task_type": "SEQ_CLS",
}


@dataclass(frozen=True)
class Pair:
    """The same expert twice: recipes in which it is an adapter, and in which it is a model."""

    directory: Path
    adapter: Recipe
    model: Recipe


def factored(base: Path, expert: Path, directory: Path) -> Path:
    """The best adapter of rank 4 in place of an expert: singular vectors of its task vectors, and its head."""
    ours, theirs = load_file(base / "model.safetensors"), load_file(expert / "model.safetensors")
    tensors = {f"base_model.model.{name}": theirs[name] for name in theirs if name.removeprefix("bert.") not in ours}
    for name in (name for name in ours if name.endswith(("query.weight", "value.weight"))):
        u, s, v = torch.linalg.svd(theirs[f"bert.{name}"] - ours[name])
        module = f"base_model.model.bert.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = v[:4].contiguous()
        tensors[f"{module}.lora_B.weight"] = (u[:, :4] * s[:4]).contiguous()
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps(SETTINGS))
    return directory


def dense_model(base: Path, adapter: Path, directory: Path) -> None:
    """The model that an adapter makes of a base, with its config."""
    with ExitStack() as stack:
        expert = open_expert(adapter, stack.enter_context(Checkpoint.open(base)), stack)
        directory.mkdir()
        save_file({name: expert.read(name).clone() for name in expert.tensors}, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(dict(expert.config)))


@pytest.fixture
def pair(tiny: Path) -> Pair:
    adapter, dense = factored(tiny / "base", tiny / "experts" / "mood", tiny / "lora"), tiny / "dense"
    dense_model(tiny / "base", adapter, dense)
    shared = ["method.steps=3", "method.init=0.3", "tasks.mood.labels=[good, bad]"]
    return Pair(
        tiny,
        Recipe.load(tiny / "recipe.yaml", [*shared, "experts.mood={adapter: lora}"]),
        Recipe.load(tiny / "recipe.yaml", [*shared, "experts.mood={model: dense}"]),
    )


def test_a_run_learns_scores_and_proves_the_same(pair: Pair) -> None:
    runs = [run(recipe, output=pair.directory / name) for name, recipe in (("a", pair.adapter), ("b", pair.model))]
    files = [load_file(result.directory / "model.safetensors") for result in runs]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    heads = [load_file(result.directory / "heads" / "mood" / "model.safetensors") for result in runs]
    assert heads[0].keys() == heads[1].keys()
    assert all(torch.equal(tensor, heads[1][name]) for name, tensor in heads[0].items())
    scores = [[model.scores for model in result.results.models] for result in runs]
    assert scores[0] == scores[1]
    assert Lock.read(runs[0].directory).experts["mood"].ref == str(pair.directory / "lora")
    assert verify(runs[0].directory).inputs == ("base", "topic", "mood")
    assert check(runs[0].directory)


def test_an_adapter_is_scored_and_compared(pair: Pair) -> None:
    scores = [evaluate(pair.directory / place, pair.adapter) for place in ("lora", "dense")]
    assert scores[0] == scores[1]
    results = [
        compare(recipe, ["ties"], pair.directory / name) for name, recipe in (("a", pair.adapter), ("b", pair.model))
    ]
    tables = [[model.scores for model in result.results.models] for result in results]
    assert tables[0] == tables[1]


def test_a_run_on_adapters_alone_learns_as_from_models(pair: Pair) -> None:
    """The tasks' models share nothing but their weights with the model that is learned."""
    directory = pair.directory
    factored(directory / "base", directory / "experts" / "topic", directory / "topic-lora")
    dense_model(directory / "base", directory / "topic-lora", directory / "topic-dense")
    shared = ["method.steps=4", "method.init=0.3", "method.lr=0.1", "tasks.mood.labels=[good, bad]"]
    shared.append("tasks.topic.labels=[animal, vehicle]")
    found = []
    for names in ("{mood: {adapter: lora}, topic: {adapter: topic-lora}}", "{mood: dense, topic: topic-dense}"):
        recipe = Recipe.load(directory / "recipe.yaml", [*shared, f"experts={names}"])
        found.append(run(recipe, output=directory / f"merged-{len(found)}"))
    files = [load_file(result.directory / "model.safetensors") for result in found]
    base = load_file(directory / "base" / "model.safetensors")
    name = "encoder.layer.0.attention.self.value.weight"
    assert float((files[0][name] - base[name]).abs().max()) > 1e-3
    for tensor, value in files[1].items():
        torch.testing.assert_close(files[0][tensor], value, rtol=0, atol=1e-5)


def test_the_doctor_opens_adapters(pair: Pair) -> None:
    assert not [finding for finding in doctor(pair.adapter).findings if finding.status != "ok"]


def test_classes_are_counted_in_the_head(pair: Pair) -> None:
    path = pair.directory / "lora" / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for part in ("weight", "bias"):
        head = f"base_model.model.classifier.{part}"
        tensors[head] = torch.cat([tensors[head]] * 3)
    path.unlink()
    save_file(tensors, path)
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(pair.directory / "base"))
        assert open_expert(path.parent, base, stack).config["num_labels"] == 6


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_what_is_learned_is_an_adapter_again(granularity: str, pair: Pair) -> None:
    """One coefficient per tensor, or per row of B: the adapter is the dense merge, for every task."""
    factored(pair.directory / "base", pair.directory / "experts" / "topic", pair.directory / "second")
    shared = [
        "experts.topic={adapter: second}",
        "tasks.topic.labels=[animal, vehicle]",
        f"method.granularity={granularity}",
        "if_worse=warn",
    ]
    dense = run(Recipe.of(pair.adapter, shared), output=pair.directory / "a")
    wanted = Recipe.of(pair.adapter, [*shared, "output={save_as: adapter}"])
    made = run(wanted, output=pair.directory / "b")
    assert made.results.adapter is not None
    assert made.results.adapter.errors == {}
    expected = load_file(dense.directory / "model.safetensors")
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(pair.directory / "base"))
        seen = open_expert(made.directory, base, stack)
        for name, tensor in expected.items():
            torch.testing.assert_close(seen.read(name), tensor, rtol=0, atol=1e-6, msg=name)
    assert verify(made.directory).loads_as == f"LORA adapter of PEFT on {pair.directory / 'base'}"
    assert check(made.directory)
    values = [{task: score.value for task, score in evaluate(path.directory, wanted).items()} for path in (dense, made)]
    assert values[0] == values[1]
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        logits = [load(each.directory, "mood")(input_ids=ids).logits for each in (dense, made)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)
