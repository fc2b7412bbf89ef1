"""Tiny Llamas as files, made without transformers: what the tests of mergekit's recipes merge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from supermerge.assemble import merge_into, output_infos
from supermerge.assemble.merge import StateDict
from supermerge.recipe import Recipe
from supermerge.resolve import opened

HIDDEN, INNER, HEADS = 16, 20, 2
# Everything is a multiple of it and below 1/2, so that fp16 holds every value and every difference exactly.
GRID = 2.0**-12
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}


def names(layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in SHAPES.items()}
    return {**shapes, "model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}


def base(layers: int = 3, vocabulary: int = 24, seed: int = 0) -> dict[str, Tensor]:
    """Multiples of GRID between −1/4 and 1/4, fp32."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(-1000, 1001, shape, generator=draw) * GRID
        for name, shape in names(layers, vocabulary).items()
    }


def expert(of: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """`of` with every element changed, in every tensor by n different magnitudes, so that no two tie."""
    draw = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        steps = torch.randperm(tensor.numel(), generator=draw).add_(1).view(tensor.shape)
        signs = torch.randint(0, 2, tensor.shape, generator=draw) * 2 - 1
        return tensor + signs * steps * GRID

    return {name: moved(tensor) for name, tensor in of.items()}


def write(
    directory: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float16,
    tokens: Sequence[str] = (),
    rows: int | None = None,
    **config: Any,
) -> Path:
    """A model directory; with `tokens` it has a tokenizer of whole words. `rows` is the vocabulary's size in config."""
    directory.mkdir(parents=True)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, directory / "model.safetensors")
    written = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": 1 + max(int(name.split(".")[2]) for name in tensors if ".layers." in name),
        "vocab_size": rows or tensors["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": False,
        "max_position_embeddings": 64,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **config,
    }
    (directory / "config.json").write_text(json.dumps(written))
    if tokens:
        tokenizer = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {token: index for index, token in enumerate(tokens)},
                "unk_token": tokens[0],
            },
        }
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": tokens[0]}
        (directory / "tokenizer_config.json").write_text(json.dumps(about))
    return directory


def merged(recipe: Path) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """What a run of `recipe` would write, without its report: the tensors, and the files beside them."""
    wanted = Recipe.load(recipe)
    with opened(wanted) as sources:
        dtype = getattr(torch, wanted.output.dtype) if wanted.output.dtype else None
        sink = StateDict(output_infos(sources.match, dtype))
        merge_into(sink, sources.choice, sources.match, seed=wanted.seed, dtype=dtype)
        files = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in sources.files.items()}
    return sink.tensors, files
