"""A source in which the rows of some tensors are picked, from its own rows or others'."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorSource, check_flat, info_of
from supermerge.checkpoint.view import View

Row = tuple[TensorSource, str, int]
"""A row of a tensor of a source: (source, stored name, index)."""

_MEAN_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Run:
    """Output rows `start` to `stop`: consecutive rows of one tensor from `first` on; or the mean of several single
    rows; or, where there are none, zeros."""

    start: int
    stop: int
    rows: tuple[Row, ...]


def runs(rows: Sequence[tuple[Row, ...]]) -> list[Run]:
    """Rows one by one -> as few runs as possible; each row is given by the rows that it is the mean of."""
    found: list[Run] = []
    for place, parts in enumerate(rows):
        last = found[-1] if found else None
        if last is not None and _continues(last, place, parts):
            found[-1] = replace(last, stop=place + 1)
        else:
            found.append(Run(place, place + 1, parts))
    return found


def _continues(run: Run, place: int, parts: tuple[Row, ...]) -> bool:
    if len(run.rows) != 1 or len(parts) != 1:
        return not run.rows and not parts
    (source, name, first), (other, other_name, index) = run.rows[0], parts[0]
    return source is other and name == other_name and index == first + place - run.start


class ChosenRows(View):
    """A TensorSource like `source`, but the tensors named in `chosen` consist of the rows of those runs."""

    def __init__(self, source: TensorSource, chosen: Mapping[str, Sequence[Run]]) -> None:
        self._chosen = dict(chosen)
        infos = dict(source.tensors)
        for name, found in self._chosen.items():
            info = info_of(source, name)
            infos[name] = replace(info, shape=(found[-1].stop if found else 0, *info.shape[1:]))
        super().__init__(source, infos)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        info = info_of(self, name)
        if name not in self._chosen:
            return self.source.read_flat(name, start, stop, buffer=buffer)
        check_flat(info, start, stop)
        width = max(1, math.prod(info.shape[1:]))
        values = torch.empty(stop - start, dtype=info.dtype)
        for run in self._chosen[name]:
            first, last = max(start, run.start * width), min(stop, run.stop * width)
            if first < last:
                values[first - start : last - start] = _read_run(run, first, last, width, info.dtype)
        return values


def _read_run(run: Run, start: int, stop: int, width: int, dtype: torch.dtype) -> Tensor:
    """Output elements start to stop, which lie in `run`: [stop - start]."""
    inside = start - run.start * width
    if len(run.rows) == 1:
        source, name, first = run.rows[0]
        begin = first * width + inside
        return source.read_flat(name, begin, begin + stop - start).to(dtype)
    total = torch.zeros(stop - start, dtype=torch.float32)
    for values in _singles(run, inside, stop - start, width):
        total += values
    return (total / max(1, len(run.rows))).to(dtype)


def _singles(run: Run, inside: int, count: int, width: int) -> Iterator[Tensor]:
    for source, name, index in run.rows:
        yield source.read_flat(name, index * width + inside, index * width + inside + count)


class MeanRow(View):
    """A TensorSource with the mean of all rows of every tensor of `source`: [1, …]. Computed once, when read."""

    def __init__(self, source: TensorSource) -> None:
        infos = {info.name: replace(info, shape=(1, *info.shape[1:])) for info in source.tensors.values() if info.shape}
        super().__init__(source, infos)
        self._means: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        check_flat(info_of(self, name), start, stop)
        with self._lock:
            if name not in self._means:
                self._means[name] = self._mean(name)
        return self._means[name][start:stop]

    def _mean(self, name: str) -> Tensor:
        info = self.source.tensors[name]
        total = torch.zeros(info.shape[1:], dtype=torch.float64)
        for first in range(0, info.shape[0], _MEAN_ROWS):
            total += self.source.read(name, slice(first, first + _MEAN_ROWS)).double().sum(0)
        return (total / max(1, info.shape[0])).reshape(-1).to(info.dtype)
