"""Writes base, two experts, data and a recipe that learns, for one architecture of the bench: `ARCH DIRECTORY`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BitImageProcessor, CLIPImageProcessor, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

ARCHITECTURES = importlib.import_module("architectures").ARCHITECTURES
TOKENS = 64
TASKS = {
    "clip-vit-b32": "type: image-classification, image: file, pooling: mean",
    "dinov2-small": "type: image-classification, image: file, pooling: cls",
    "minilm": f"type: text-classification, pooling: mean, max_length: {TOKENS}",
    "llama-tiny": f"type: causal-lm, target: text, max_length: {TOKENS}",
}
PROCESSORS = {
    "clip-vit-b32": CLIPImageProcessor(),
    "dinov2-small": BitImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
}


def main(arch: str, directory: Path) -> None:
    """Random weights, random images and words; every text is longer than the model reads."""
    torch.manual_seed(0)
    base = directory / "base"
    model = ARCHITECTURES[arch].build()
    if arch == "llama-tiny":
        model = LlamaForCausalLM(model.config)
    model.save_pretrained(base)
    if arch in PROCESSORS:
        PROCESSORS[arch].save_pretrained(base)
    else:
        _words(model.config.vocab_size).save_pretrained(base)
    tensors = load_file(base / "model.safetensors")
    for expert in ("a", "b"):
        theirs = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in tensors.items()}
        if "pooling" in TASKS[arch]:
            theirs["classifier.weight"] = torch.randn(3, model.config.hidden_size)
        (directory / expert).mkdir()
        (directory / expert / "config.json").write_text((base / "config.json").read_text())
        save_file(theirs, directory / expert / "model.safetensors", {"format": "pt"})
    for split, count, seed in (("valid", 32, 0), ("test", 48, 1)):
        rows = _rows(arch in PROCESSORS, directory / split, count, seed)
        (directory / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    about = f"{TASKS[arch]}, batch_size: 16, labels: [x, y, z], validation: valid.jsonl, test: test.jsonl"
    if arch == "llama-tiny":
        about = about.replace("labels: [x, y, z], ", "")
    (directory / "recipe.yaml").write_text(
        "base: base\nexperts: {a: a, b: b}\nmethod: {name: supermerge, steps: 2, patience: null}\n"
        f"tasks:\n  a: {{expert: a, {about}}}\n  b: {{expert: b, {about}}}\noutput: {{path: merged}}\nif_worse: warn\n"
    )


def _words(count: int) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({str(i): i for i in range(count)}, unk_token="0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="0", pad_token="1", eos_token="2")


def _rows(images: bool, directory: Path, count: int, seed: int) -> list[dict[str, str]]:
    draw = np.random.default_rng(seed)
    if not images:
        texts = [" ".join(map(str, draw.integers(3, 30_000, 2 * TOKENS))) for _ in range(count)]
        return [{"text": text, "label": "xyz"[i % 3]} for i, text in enumerate(texts)]
    directory.mkdir()
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(directory / f"{i}.png")
    return [{"file": f"{directory.name}/{i}.png", "label": "xyz"[i % 3]} for i in range(count)]


main(sys.argv[1], Path(sys.argv[2]))
