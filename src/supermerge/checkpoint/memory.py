"""Tensors already in memory as a TensorSource: a mapping, a module's state, or another source kept resident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource, check_flat, info_of, row_range
from supermerge.errors import CheckpointError, UsageError


class MemoryStore:
    """A TensorSource over a mapping; reading gives views of its tensors (copies of those not on the CPU)."""

    def __init__(self, label: str, tensors: Mapping[str, Tensor]) -> None:
        self.label = label
        self._data: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise CheckpointError(
                    f"{label}: {name!r} is a {type(name).__name__}, not the name of a tensor",
                    hint="Give a mapping of names to tensors, such as `model.state_dict()`.",
                )
            if not isinstance(tensor, Tensor):
                raise CheckpointError(
                    f"{label}: {name!r} is a {type(tensor).__name__}, not a tensor",
                    hint="Give a mapping of names to tensors, such as `model.state_dict()`.",
                )
            if tensor.is_meta or tensor.layout is not torch.strided:
                raise CheckpointError(
                    f"{label}: tensor {name!r} is a {_odd(tensor)} tensor, which holds no plain values",
                    hint="Load the model's weights onto a device, dense, before merging.",
                )
            self._data[name] = tensor.detach()
        self._infos = MappingProxyType(
            {name: TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self._data.items()}
        )
        self._bytes_read = 0

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in the mapping's order."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes given so far, as a reader from disk would count them."""
        return self._bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype."""
        start, stop, shape = row_range(info_of(self, name), rows)
        return self.read_flat(name, start, stop).view(shape)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        info = info_of(self, name)
        check_flat(info, start, stop)
        if name not in self._data:
            raise UsageError(f"{self.label}: is closed")
        self._bytes_read += (stop - start) * info.dtype.itemsize
        return self._data[name].reshape(-1)[start:stop].cpu()

    def close(self) -> None:
        """Let go of the tensors."""
        self._data = {}


class Resident(MemoryStore):
    """Another source, of which the tensors `kept` are read once and kept in storage dtype: the same bytes."""

    def __init__(self, source: TensorSource, kept: Iterable[str]) -> None:
        super().__init__(source.label, {name: source.read(name) for name in kept})


def _odd(tensor: Tensor) -> str:
    return "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
