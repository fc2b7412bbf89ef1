"""Another source seen under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource, info_of


class Renamed:
    """A TensorSource that gives the tensors of `source` under new names: `names` maps new name -> stored name."""

    def __init__(self, source: TensorSource, names: Mapping[str, str]) -> None:
        self.source = source
        self.names: Mapping[str, str] = MappingProxyType(dict(names))
        self._infos = MappingProxyType({new: replace(info_of(source, old), name=new) for new, old in names.items()})

    @property
    def label(self) -> str:
        """The source's own label."""
        return self.source.label

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensors by their new names."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes the source has given so far, by whatever name."""
        return self.source.bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype."""
        info_of(self, name)
        return self.source.read(self.names[name], rows, buffer=buffer)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        info_of(self, name)
        return self.source.read_flat(self.names[name], start, stop, buffer=buffer)
