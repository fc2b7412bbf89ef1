"""A merge as a source: its tensors are computed when they are read."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from supermerge.assemble.choice import Choice
from supermerge.assemble.passes import Passes
from supermerge.assemble.stream import cast, output_infos
from supermerge.checkpoint import Buffer, Match, TensorInfo
from supermerge.checkpoint.source import check_flat, info_of, row_range


class Merged:
    """A TensorSource over a merge that is never written: what `merge_into` would write, tensor by tensor.

    The tensor that a thread read last is kept, so that reading it piece by piece, in several passes, merges it once.
    """

    def __init__(
        self, label: str, match: Match, choice: Choice, *, dtype: torch.dtype | None = None, seed: int = 0
    ) -> None:
        self.label = label
        self._match, self._choice, self._dtype, self._seed = match, choice, dtype, seed
        self._infos = MappingProxyType({info.name: info for info in output_infos(match, dtype)})
        self._local, self._lock = threading.local(), threading.Lock()
        self._passes: Passes | None = None
        self._bytes_read = 0

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The base's names, shapes and order."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes given so far."""
        return self._bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in the dtype of the merge."""
        start, stop, shape = row_range(info_of(self, name), rows)
        return self.read_flat(name, start, stop).view(shape)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in the dtype of the merge."""
        info = info_of(self, name)
        check_flat(info, start, stop)
        if getattr(self._local, "name", None) != name:
            self._local.values, self._local.name = self._made(info), name
        with self._lock:
            self._bytes_read += (stop - start) * info.dtype.itemsize
        return self._local.values[start:stop]

    def _made(self, info: TensorInfo) -> Tensor:
        with self._lock:
            if self._passes is None:
                self._passes = Passes(self._match, self._choice, self._seed, 1)
                self._passes.survey()
        values = torch.empty(info.numel, dtype=info.dtype)
        with self._passes.mode(info.name):
            if info.name in self._passes.bounds:
                for start, merged in self._passes.merge(info.name):
                    values[start : start + len(merged)] = cast(merged, info.dtype, info.name)
            else:
                for start, stored in self._passes.reader.raw(info.name, None):
                    values[start : start + len(stored)] = stored.to(info.dtype)
        return values
