"""Tiny models of many architectures are merged without data, and transformers loads the results as they are."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

import supermerge
from supermerge.checkpoint import Checkpoint
from supermerge.recipe import Recipe

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SMALL, "vocab_size": 48, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2}
IMAGES = {**SMALL, "image_size": 8, "patch_size": 4}
DECODER = {**TEXT, "num_key_value_heads": 1, "pad_token_id": 0}


def llama(*, tied: bool) -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER, tie_word_embeddings=tied))


def mixtral() -> PreTrainedModel:
    config = transformers.MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2)
    return transformers.MixtralForCausalLM(config)


def qwen_vl() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 16,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
    }
    config = transformers.Qwen2VLConfig(
        text_config={**DECODER, "rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=3,
        video_token_id=4,
        vision_start_token_id=5,
        vision_end_token_id=6,
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


def clip() -> PreTrainedModel:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGES, projection_dim=12)
    return transformers.CLIPModel(config)


def t5() -> PreTrainedModel:
    config = transformers.T5Config(
        vocab_size=48, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def whisper() -> PreTrainedModel:
    config = transformers.WhisperConfig(
        vocab_size=48,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=16,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return transformers.WhisperForConditionalGeneration(config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**IMAGES, num_labels=3)),
    "clip": clip,
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**TEXT)),
    "t5": t5,
    "whisper": whisper,
    "llama": lambda: llama(tied=False),
    "llama-tied": lambda: llama(tied=True),
    "mixtral": mixtral,
    "qwen2-vl": qwen_vl,
}


def write_family(build: Callable[[], PreTrainedModel], directory: Path) -> dict[str, torch.Tensor]:
    """Base and two experts as directories, with the recipe beside them; base + 0.3 Σ τ, by the model's names."""
    torch.manual_seed(0)
    model = build()
    model.save_pretrained(directory / "base")
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = {name: tensor.double() for name, tensor in base.items()}
    for expert in ("one", "two"):
        model.load_state_dict(base)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * (parameter.abs().mean() + 0.01) * torch.randn_like(parameter)
        model.save_pretrained(directory / expert)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] += 0.3 * (tensor.double() - base[name])
    (directory / "recipe.yaml").write_text(
        "base: base\nexperts: {one: one, two: two}\nmethod: task_arithmetic\noutput: {path: merged, shard_size: 20kB}\n"
    )
    return expected


def twins(model: nn.Module) -> list[list[str]]:
    """The names that share one tensor."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)


def stored(directory: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    with Checkpoint.open(directory) as checkpoint:
        return {name: (info.dtype, tuple(info.shape)) for name, info in checkpoint.tensors.items()}


def loaded(build: Callable[[], PreTrainedModel], directory: Path) -> PreTrainedModel:
    """The merged model, all of it: nothing missing, nothing unexpected, tied where the base is."""
    assert stored(directory / "merged") == stored(directory / "base")
    original = build()
    merged, info = type(original).from_pretrained(directory / "merged", output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}
    assert twins(merged) == twins(original)
    return merged


def check(build: Callable[[], PreTrainedModel], directory: Path, expected: dict[str, torch.Tensor]) -> None:
    state = loaded(build, directory).state_dict()
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert torch.allclose(tensor.double(), expected[name], rtol=0, atol=1e-6), name


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_the_merge_of_every_architecture(name: str, tmp_path: Path) -> None:
    expected = write_family(MODELS[name], tmp_path)
    supermerge.run(Recipe.load(tmp_path / "recipe.yaml"))
    check(MODELS[name], tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ties", "slerp", "tsv_m", "neuromerging", "larv"])
@pytest.mark.parametrize("name", MODELS)
def test_whole_tensors_and_whole_models_are_merged_too(name: str, method: str, tmp_path: Path) -> None:
    write_family(MODELS[name], tmp_path)
    supermerge.run(Recipe.load(tmp_path / "recipe.yaml", [f"method={method}"]))
    loaded(MODELS[name], tmp_path)
    with Checkpoint.open(tmp_path / "merged") as merged, Checkpoint.open(tmp_path / "base") as base:
        assert any(not torch.equal(merged.read(key), base.read(key)) for key in base.tensors)


def test_tied_weights_are_there_to_be_kept() -> None:
    found = {name: bool(twins(build())) for name, build in MODELS.items()}
    assert {name for name, tied in found.items() if tied} == {"bert", "t5", "whisper", "llama-tied", "qwen2-vl"}


def test_the_command_line_does_the_same(tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    expected = write_family(MODELS["t5"], tmp_path)
    done = cli("run", "recipe.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    check(MODELS["t5"], tmp_path, expected)
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(stored(tmp_path / "base"))
