"""What every view of other sources shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource, info_of, row_range


class View(ABC):
    """A TensorSource that reads from `source` when it is read: it has the tensors `infos` and gives ranges of them."""

    def __init__(self, source: TensorSource, infos: Mapping[str, TensorInfo]) -> None:
        self.source = source
        self._infos = MappingProxyType(dict(infos))

    @property
    def label(self) -> str:
        """The source's own label."""
        return self.source.label

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors it gives."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes the source has given so far, to anyone."""
        return self.source.bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype."""
        start, stop, shape = row_range(info_of(self, name), rows)
        return self.read_flat(name, start, stop, buffer=buffer).view(shape)

    @abstractmethod
    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
