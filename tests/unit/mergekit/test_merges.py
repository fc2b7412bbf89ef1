"""mergekit's recipes on tiny Llamas, against the same arithmetic written out here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import supermerge
from supermerge.errors import CheckpointError, RecipeError
from supermerge.verify import verify

sys.path.insert(0, str(Path(__file__).parents[2]))
import llama

Merge = Callable[..., dict[str, Tensor]]
BASE = llama.base()
MODELS = {"base": BASE, **{name: llama.expert(BASE, seed) for seed, name in enumerate("abc", 1)}}
ONE = "models: [{model: a, parameters: {weight: 1}}]\nbase_model: base\n"
ALONE = "models: [{model: a}]\nbase_model: base\n"
TWO = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 3}}]\n"


@pytest.fixture
def merge(tmp_path: Path) -> Merge:
    for name, tensors in MODELS.items():
        llama.write(tmp_path / name, tensors, torch.float32)

    def run(text: str) -> dict[str, Tensor]:
        (tmp_path / "m.yml").write_text(text)
        return llama.merged(tmp_path / "m.yml")[0]

    return run


@pytest.fixture
def run(merge: Merge, tmp_path: Path) -> Merge:
    """As `merge`, but as a whole run into `out`."""

    def whole(text: str) -> dict[str, Tensor]:
        merge(text)
        supermerge.run(tmp_path / "m.yml", output=tmp_path / "out")
        return load_file(tmp_path / "out" / "model.safetensors")

    return whole


def test_linear(merge: Merge) -> None:
    for name, tensor in merge(TWO + "merge_method: linear\n").items():
        torch.testing.assert_close(tensor, (MODELS["a"][name] + 3 * MODELS["b"][name]) / 4)


def test_linear_without_normalisation(merge: Merge) -> None:
    for name, tensor in merge(TWO + "merge_method: linear\nparameters: {normalize: false}\n").items():
        torch.testing.assert_close(tensor, MODELS["a"][name] + 3 * MODELS["b"][name])


def test_filters_and_gradients(merge: Merge) -> None:
    text = ONE.replace("weight: 1", "weight: [{filter: mlp, value: [0, 1]}, {value: 0.5}]")
    for name, tensor in merge(text + "merge_method: task_arithmetic\nparameters: {lambda: 2}\n").items():
        place = int(name.split(".")[2]) / 2 if ".layers." in name else 0.0
        weight = 2 * (place if "mlp" in name else 0.5)
        torch.testing.assert_close(tensor, BASE[name] + weight * (MODELS["a"][name] - BASE[name]))


def test_slices(run: Merge, tmp_path: Path) -> None:
    text = (
        "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
        "- sources: [{model: b, layer_range: [1, 3], parameters: {scale: [{filter: down_proj, value: 0.5}]}}]\n"
    )
    found = run(text)
    origin = {0: ("a", 0), 1: ("a", 1), 2: ("b", 1), 3: ("b", 2)}
    assert len(found) == 4 * 9 + 3
    for name, tensor in found.items():
        if ".layers." in name:
            number = int(name.split(".")[2])
            model, layer = origin[number]
            scale = 0.5 if number > 1 and "down_proj" in name else 1
            assert torch.equal(tensor, scale * MODELS[model][name.replace(f".{number}.", f".{layer}.")])
        else:
            assert torch.equal(tensor, MODELS["a" if "embed" in name else "b"][name])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4
    lock = json.loads((tmp_path / "out" / "recipe.lock.json").read_text())
    assert "model.layers.2.mlp.up_proj.weight" in lock["experts"]["b"]["tensors"]
    assert "model.layers.2.mlp.up_proj.weight" not in lock["base"]["tensors"]
    verify(tmp_path / "out")


def test_documents_that_use_each_other(run: Merge, tmp_path: Path) -> None:
    text = "name: middle\n" + ONE + "merge_method: task_arithmetic\nparameters: {lambda: 0.5}\n---\n"
    text += TWO.replace("model: a", "model: middle") + "merge_method: linear\nout_dtype: float16\n"
    for name, tensor in run(text).items():
        middle = BASE[name] + 0.5 * (MODELS["a"][name] - BASE[name])
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor.float(), (middle + 3 * MODELS["b"][name]) / 4, atol=1e-3, rtol=1e-3)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"
    verify(tmp_path / "out")


@pytest.mark.usefixtures("merge")
def test_the_plan_knows_the_output(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(TWO + "merge_method: linear\ndtype: float16\n")
    planned = supermerge.plan(tmp_path / "m.yml")
    assert (planned.method, planned.merged) == ("linear", len(BASE))
    assert planned.output_bytes == 2 * sum(tensor.numel() for tensor in BASE.values())


REFUSED = {
    TWO.replace("3", "-1") + "merge_method: linear\n": "sum to 0 and cannot be normalised",
    ONE.replace("weight: 1", "weight: 1, density: 2.5e300") + "merge_method: task_arithmetic\n": "density",
    ONE.replace("weight: 1", "weight: 1, density: -1") + "merge_method: ties\n": "density",
    ONE.replace("weight: 1", "density: 0.5") + "merge_method: ties\n": "parameter 'weight' is missing for tensor",
    ONE + "merge_method: ties\nparameters: {rescale: true}\n": "rescale = True cannot be honoured",
    ONE + "merge_method: dare_ties\nparameters: {rescale: false}\n": "rescale = False cannot be honoured",
    ONE + "merge_method: ties\nparameters: {normalize: 2}\n": "normalize = 2: expected true or false",
    "merge_method: slerp\nparameters: {t: 0.5}\n" + ALONE.replace("]", ", {model: b}, {model: c}]"): "3 experts given",
    "merge_method: slerp\nparameters: {t: 1.5}\n" + ALONE: "t = 1.5",
    "merge_method: model_stock\n" + ALONE: "model_stock: 1 experts given, expected at least 2",
    "models: [{model: a}, {model: b}]\nmerge_method: passthrough\n": "passthrough: 2 models given",
    ONE.replace("base_model: base", "base_model: c") + "merge_method: linear\n": "so it has no weight",
    "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [2, 4]}]}]\n": "has 3 layers",
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.usefixtures("merge")
def test_refuses(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        supermerge.plan(tmp_path / "m.yml")
    assert REFUSED[text] in caught.value.message


def test_missing_tensors_are_named(merge: Merge, tmp_path: Path) -> None:
    gone = "model.layers.1.mlp.up_proj.weight"
    save_file({name: t for name, t in MODELS["b"].items() if name != gone}, tmp_path / "b" / "model.safetensors")
    with pytest.raises(CheckpointError, match=gone.replace(".", r"\.")):
        merge(TWO + "merge_method: linear\n")
