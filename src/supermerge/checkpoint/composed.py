"""A source put together from tensors of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource, info_of


class Composed:
    """A TensorSource whose tensors are those of others: `parts` maps a new name -> (source, stored name)."""

    def __init__(self, label: str, parts: Mapping[str, tuple[TensorSource, str]]) -> None:
        self.label = label
        self.parts = MappingProxyType(dict(parts))
        self._infos = MappingProxyType(
            {new: replace(info_of(source, old), name=new) for new, (source, old) in self.parts.items()}
        )
        self._sources = list({id(source): source for source, _ in self.parts.values()}.values())

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensors by their new names."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes that its sources have given so far, to anyone."""
        return sum(source.bytes_read for source in self._sources)

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype."""
        info_of(self, name)
        source, stored = self.parts[name]
        return source.read(stored, rows, buffer=buffer)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        info_of(self, name)
        source, stored = self.parts[name]
        return source.read_flat(stored, start, stop, buffer=buffer)
