from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

MakeModel = Callable[..., dict[str, Tensor]]


@pytest.fixture
def make_model() -> MakeModel:
    """A tiny encoder's state: `make_model(seed, prefix="", width=4, layers=2, classes=0)`."""

    def make(seed: int, prefix: str = "", *, width: int = 4, layers: int = 2, classes: int = 0) -> dict[str, Tensor]:
        draws = torch.Generator().manual_seed(seed)
        state = {
            f"{prefix}embeddings.word.weight": torch.randn(50, width, generator=draws),
            f"{prefix}embeddings.position_ids": torch.arange(5),
        }
        for i in range(layers):
            state[f"{prefix}encoder.layer.{i}.query.weight"] = torch.randn(width, width, generator=draws)
            state[f"{prefix}encoder.layer.{i}.query.bias"] = torch.randn(width, generator=draws)
            state[f"{prefix}encoder.layer.{i}.norm.weight"] = torch.ones(width)
        if classes:
            state["classifier.weight"] = torch.randn(classes, width, generator=draws)
            state["classifier.bias"] = torch.zeros(classes)
        return state

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, dict[str, Tensor]], Path]:
    """Write a model directory under tmp_path with the format's own library; gives the directory."""

    def write(name: str, tensors: dict[str, Tensor]) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory

    return write
