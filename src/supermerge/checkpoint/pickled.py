"""PyTorch's own files (.bin, .pt, .pth): opened only when allowed, and then tensors only, never code."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supermerge.checkpoint.memory import MemoryStore
from supermerge.errors import CheckpointError


def open_pickles(label: str, paths: Iterable[Path]) -> MemoryStore:
    """The tensors of one or more files, held in memory. Raises CheckpointError naming the file that cannot be read."""
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors.update(_load(path))
    return MemoryStore(label, tensors)


def _load(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, IndexError, EOFError, OSError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be read as a file of tensors: {reason}",
            hint="It is corrupt, or holds more than tensors: save the model as safetensors.",
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not named tensors", hint="Save the model's state_dict()."
        )
    return content
