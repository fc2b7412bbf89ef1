"""A model seen through an adapter: its tensors, those that the adapter changes worked out as they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from supermerge.checkpoint.adapters.changes import Changed, Fitted, Rows, Stored
from supermerge.checkpoint.adapters.settings import AdapterSettings
from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource, check_flat, info_of, row_range

_BLOCK = 1 << 16  # elements worked out at once: in float64 they fit into a processor's cache


class Adapted:
    """A TensorSource like `model`, with the tensors in `fitted.changed` instead of its own or beside them.

    Values are worked out in float64 in blocks of whole rows whose places depend on the shape alone, and rounded once,
    to fp32 (fp64 where the model's are): what is read in pieces is, bit for bit, what is read at once.
    """

    def __init__(
        self, label: str, model: Checkpoint, adapter: TensorSource, settings: AdapterSettings, fitted: Fitted
    ) -> None:
        self.label, self.model, self.adapter, self.settings, self.fitted = label, model, adapter, settings, fitted
        infos = dict(model.tensors)
        for name, what in fitted.changed.items():
            infos[name] = _info(name, what)
        self._infos = MappingProxyType(infos)
        self._loaded = threading.local()

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The model's tensors in its order, then those that only the adapter has."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes that the model, to anyone, and the adapter have given so far."""
        return self.model.bytes_read + self.adapter.bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in the dtype of its info."""
        start, stop, shape = row_range(info_of(self, name), rows)
        return self.read_flat(name, start, stop, buffer=buffer).view(shape)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in the dtype of its info."""
        info, what = info_of(self, name), self.fitted.changed.get(name)
        if what is None:
            return self.model.read_flat(name, start, stop, buffer=buffer)
        check_flat(info, start, stop)
        if what.change is None:
            return what.stored[0].read_flat(what.stored[1], start, stop, buffer=buffer)
        values = (buffer if buffer is not None else Buffer()).tensor(info.dtype, stop - start)
        rows, width = self._rows(name, what), _width(info)
        for first, block in _blocks(what.stored, start // width, -(-stop // width)):
            begin = first * width
            made = rows(block, first).flatten()
            low, high = max(start, begin), min(stop, begin + made.numel())
            values[low - start : high - start] = made[low - begin : high - begin]
        return values

    def _rows(self, name: str, what: Changed) -> Rows:
        """The change of the tensor that a thread reads, loaded until it reads another."""
        assert what.change is not None
        if getattr(self._loaded, "name", None) != name:
            count = what.stored[0].tensors[what.stored[1]].shape[0]
            self._loaded.rows = what.change.load(lambda: (block for _, block in _blocks(what.stored, 0, count)))
            self._loaded.name = name
        return self._loaded.rows


def _info(name: str, what: Changed) -> TensorInfo:
    source, stored = what.stored
    info = replace(info_of(source, stored), name=name)
    if what.change is None or info.dtype == torch.float64:
        return info
    return replace(info, dtype=torch.float32)


def _width(info: TensorInfo) -> int:
    return max(1, info.numel // max(1, info.shape[0]))


def _blocks(stored: Stored, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
    """The blocks that hold rows first to last: (index of its first row, rows in float64 [m, columns])."""
    source, name = stored
    info = info_of(source, name)
    width, buffer = _width(info), Buffer()
    step = max(1, _BLOCK // width)
    for begin in range(first // step * step, last, step):
        end = min(begin + step, info.shape[0])
        yield begin, source.read_flat(name, begin * width, end * width, buffer=buffer).double().view(-1, width)
