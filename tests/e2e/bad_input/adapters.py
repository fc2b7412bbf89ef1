"""Adapters that are damaged, of kinds that are not read, or of another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from case import MOOD, RUN, Case, Tensors, json_file, recipe
from safetensors.torch import load_file, save_file

DATALESS = (*RUN, "--set", "method=task_arithmetic", "--set", "tasks={}")
ADAPTER = "experts/mood/adapter_model.safetensors"
SETTINGS = "experts/mood/adapter_config.json"
LAYER = "base_model.model.bert.encoder.layer"


def adapter(change: Callable[[Tensors], object] = lambda tensors: None, **settings: Any) -> Callable[[Path], object]:
    """Put a LoRA of the base in the place of an expert, with other settings or tensors; None deletes a setting."""

    def spoil(tiny: Path) -> None:
        width = load_file(tiny / "base" / "model.safetensors")["encoder.layer.0.attention.self.query.weight"].shape[0]
        (tiny / MOOD).unlink()
        draws = torch.Generator().manual_seed(0)
        tensors = {
            f"{LAYER}.{layer}.attention.self.{module}.{part}.weight": torch.randn(shape, generator=draws) / 50
            for layer in (0, 1)
            for module in ("query", "value")
            for part, shape in (("lora_A", (2, width)), ("lora_B", (width, 2)))
        }
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tiny / ADAPTER)
        document = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"], **settings}
        written = {key: value for key, value in document.items() if value is not None}
        (tiny / SETTINGS).write_text(json.dumps(written))

    return spoil


def renamed(old: str, new: str) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def without(part: str) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return change


def wider(tensors: Tensors) -> None:
    for name in [name for name in tensors if "lora_A" in name]:
        tensors[name] = torch.cat([tensors[name], tensors[name]], 1)


def of_no_rank(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor[:0] if "lora_A" in name else tensor[:, :0]


def untrained(tensors: Tensors) -> None:
    for name in [name for name in tensors if "lora_B" in name]:
        tensors[name] = torch.zeros_like(tensors[name])


def flattened(tensors: Tensors) -> None:
    for name in [name for name in tensors if "lora_B" in name]:
        tensors[name] = tensors[name].flatten()


def one_nan(tensors: Tensors) -> None:
    tensors[f"{LAYER}.1.attention.self.query.lora_B.weight"][0, 0] = float("nan")


def whole_numbers(tensors: Tensors) -> None:
    for name in [name for name in tensors if "lora_A" in name]:
        tensors[name] = torch.ones(tensors[name].shape, dtype=torch.int8)


def of_a_convolution(tensors: Tensors) -> None:
    for name in [name for name in tensors if "lora_A" in name]:
        tensors[name] = tensors[name][..., None, None]


def spoiled(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda tiny: [step(tiny) for step in steps]


def model_for_an_adapter(tiny: Path) -> None:
    recipe(experts__mood={"adapter": "experts/mood"})(tiny)


def pickled(tiny: Path) -> None:
    adapter()(tiny)
    torch.save(load_file(tiny / ADAPTER), tiny / "experts/mood/adapter_model.bin")
    (tiny / ADAPTER).unlink()


def the_base(tiny: Path) -> None:
    adapter()(tiny)
    shutil.rmtree(tiny / "base")
    shutil.copytree(tiny / "experts/mood", tiny / "base")


def quantised(document: dict[str, Any]) -> None:
    document["quantization_config"] = {"quant_method": "gptq", "bits": 4}


CASES = [
    Case("an adapter of a model with other shapes", adapter(wider), 4, ("does not fit", "the model's [")),
    Case(
        "an adapter of a model with other modules",
        adapter(renamed("query", "q_proj"), base_model_name_or_path="someone/llama"),
        4,
        ("someone/llama", "q_proj.weight", "no such tensor"),
    ),
    Case("a target module that the file lacks", adapter(without("value")), 4, ("'value'", "no tensors")),
    Case("a target module that the file lacks in a layer", adapter(without("1.attention.self.value")), 4, ("'value'",)),
    Case("a rank of 0", adapter(r=0), 4, ("adapter_config.json", "rank 0")),
    Case("matrices of rank 0", adapter(of_no_rank), 4, ("lora_A has rank 0",)),
    Case("a vector for a matrix", adapter(flattened), 4, ("lora_B", "no matrix")),
    Case("matrices of a convolution", adapter(of_a_convolution), 4, ("lora_A", "no matrix")),
    Case("matrices of whole numbers", adapter(whole_numbers), 4, ("query.weight", "not of floating point")),
    Case("another rank than the settings say", adapter(r=3), 4, ("rank 3", "rank 2")),
    Case("half of a pair of matrices", adapter(without("0.attention.self.query.lora_B")), 4, ("lora_B is not in",)),
    Case("an unknown type of adapter", adapter(peft_type="LOHA"), 4, ("'LOHA'", "LORA and IA3", "merge_and_unload")),
    Case("an adapter without a type", adapter(peft_type=None), 4, ("type None", "LORA and IA3")),
    Case("a setting that is not known", adapter(use_qalora=True), 4, ("'use_qalora'",)),
    Case("an adapter that changed its base", adapter(init_lora_weights="pissa"), 4, ("'pissa'", "base's weights")),
    Case("an alpha that is not a number", adapter(lora_alpha=float("nan")), 4, ("lora_alpha", "nan")),
    Case("a switch that is a word", adapter(use_rslora="false"), 4, ("use_rslora = 'false'", "true or false")),
    Case("biases that the file lacks", adapter(lora_bias=True), 4, ("lora_bias is set", "no bias of it")),
    Case("a pattern that takes for ever", adapter(rank_pattern={"(.*)*x": 2}), 4, ("(.*)*x",)),
    Case("a pattern that is none", adapter(alpha_pattern={"[": 2}), 4, ("pattern '['",)),
    Case("a tensor of another kind of adapter", adapter(renamed("lora_A.weight", "lokr_w1")), 4, ("lokr_w1",)),
    Case("DoRA without magnitudes", adapter(use_dora=True), 4, ("magnitudes",)),
    Case(
        "settings that are no JSON", spoiled(adapter(), lambda t: (t / SETTINGS).write_text("{")), 4, (SETTINGS, "JSON")
    ),
    Case("settings without weights", spoiled(adapter(), lambda t: (t / ADAPTER).unlink()), 4, ("adapter_model",)),
    Case("an adapter in a pickle", pickled, 4, ("no adapter_model.safetensors", "pickle")),
    Case("a model for an adapter", model_for_an_adapter, 4, ("experts/mood", "no adapter_config.json")),
    Case("an adapter that is not there", recipe(experts__mood={"adapter": "./nowhere"}), 4, ("nowhere",)),
    Case("an adapter for a base", the_base, 4, ("base", "holds an adapter, not a model")),
    Case(
        "an adapter on a quantised base",
        spoiled(adapter(), json_file("base/config.json", quantised)),
        4,
        ("base", "quantised", "dequantize"),
    ),
    Case("an adapter that was not trained", adapter(untrained), 4, ("same weights as the base",), DATALESS),
    Case("a NaN in an adapter", adapter(one_nan), 4, ("NaN", "query.weight"), DATALESS),
    Case(
        "an adapter wanted of a mix with a full expert",
        adapter(),
        3,
        ("output.save_as", "topic is no adapter on the base", "save_as: dense"),
        (*DATALESS, "--set", "output.save_as=adapter"),
    ),
    Case("a rank without an adapter", adapter(), 3, ("'rank'", "save_as: adapter"), (*RUN, "--set", "output.rank=4")),
    Case("a rank of 0 wanted", adapter(), 3, ("rank", "1"), (*RUN, "--set", "output={save_as: adapter, rank: 0}")),
    Case(
        "another form wanted",
        adapter(),
        3,
        ("save_as", "'lora'", "dense, adapter"),
        (*RUN, "--set", "output.save_as=lora"),
    ),
]
