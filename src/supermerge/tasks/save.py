"""What an output directory holds beside the merged weights: the backbone's config, and a directory per head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from supermerge.checkpoint import save_tensors
from supermerge.tasks.heads import Head

HEADS = "heads"
_OF_A_HEAD = ("id2label", "label2id", "num_labels", "problem_type", "torch_dtype")


def backbone_config(base: Mapping[str, Any], model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json of the merged backbone: the base's, for the class of `model`, without a head's class names."""
    kept = {key: value for key, value in base.items() if key not in _OF_A_HEAD}
    return {**kept, "architectures": [type(model).__name__], "dtype": str(dtype).removeprefix("torch.")}


def save_heads(heads: Mapping[str, Head], directory: Path) -> dict[str, str]:
    """Write `heads/<task>/{config.json, model.safetensors}` below `directory`; returns the tensors' hashes.

    A head without tensors of its own (a generative model's, mostly) is a config alone. Hashes are keyed `task/tensor`.
    """
    hashes: dict[str, str] = {}
    for task, head in heads.items():
        place = directory / HEADS / task
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(head.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if head.own:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.own.items()}
            written = save_tensors(place / "model.safetensors", tensors)
            hashes.update({f"{task}/{name}": digest for name, digest in written.items()})
    return hashes
