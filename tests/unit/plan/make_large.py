"""Writes a Llama of a given width and depth, experts of it, data and a recipe: `DIRECTORY WIDTH LAYERS EXPERTS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS, TOKENS = 512, 8


def main(directory: Path, width: int, layers: int, experts: int) -> None:
    """Random weights and words; prints the bytes of the base."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(directory / "base")
    inner = Tokenizer(models.WordLevel({str(i): i for i in range(WORDS)}, unk_token="0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="0", pad_token="1", eos_token="2")
    tokenizer.save_pretrained(directory / "base")
    tensors = load_file(directory / "base" / "model.safetensors")
    for i in range(experts):
        place = directory / f"e{i}"
        place.mkdir()
        (place / "config.json").write_text((directory / "base" / "config.json").read_text())
        theirs = {name: tensor + 0.001 * torch.randn_like(tensor) for name, tensor in tensors.items()}
        save_file(theirs, place / "model.safetensors", {"format": "pt"})
    texts = [" ".join(str((7 * i + 3 * j) % 500 + 3) for j in range(TOKENS)) for i in range(8)]
    (directory / "valid.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts))
    task = f"type: causal-lm, target: text, max_length: {TOKENS}, validation: valid.jsonl, batch_size: 2"
    (directory / "recipe.yaml").write_text(
        f"base: base\nexperts: {{{', '.join(f'e{i}: e{i}' for i in range(experts))}}}\n"
        "method: {name: supermerge, steps: 2, patience: null, init: 0.3}\nif_worse: warn\n"
        f"tasks:\n  a: {{expert: e0, {task}}}\n  b: {{expert: e1, {task}}}\noutput: {{path: merged}}\n"
    )
    sys.stdout.write(f"{sum(4 * tensor.numel() for tensor in tensors.values())}\n")


main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
