"""Adapters as the dense models that they make."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from supermerge.checkpoint import Checkpoint, open_expert


def values_of(base: Path, adapter: Path) -> dict[str, Tensor]:
    """Every tensor of the model that an adapter makes of a base."""
    with ExitStack() as stack:
        expert = open_expert(adapter, stack.enter_context(Checkpoint.open(base)), stack)
        return {name: expert.read(name).clone() for name in expert.tensors}


def dense(base: Path, adapter: Path, directory: Path) -> Path:
    """The model that an adapter makes of a base, as a checkpoint of its own."""
    directory.mkdir()
    save_file(values_of(base, adapter), directory / "model.safetensors")
    return directory
