"""Reads a tensor of the base and of every expert piece by piece: fp32 values, finite, hashed on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from blake3 import blake3
from torch import Tensor

from supermerge.checkpoint import Buffer, Match, require_finite
from supermerge.checkpoint.adapters import AdapterView
from supermerge.checkpoint.hashing import tensor_bytes
from supermerge.methods import BLOCK, PART

_READ_ELEMENTS = 24 * BLOCK
_SAMPLE, _SAMPLED_STRETCH = 4096, 8 * BLOCK


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements of a tensor from flat position `start` on: `rows [k + 1, n]`, θp and τ1 … τk, until the next is read."""

    start: int
    rows: Tensor


def piece_elements(k: int) -> int:
    """Elements read at once of base and k experts each: fewer for more experts, so that memory does not grow.

    Whole blocks, or parts of one where base and experts are many.
    """
    each = _READ_ELEMENTS // (k + 1)
    unit = BLOCK if each >= BLOCK else PART
    return max(unit, each // unit * unit)


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """What a tensor is merged in: fp32, or fp64 where it is stored so."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Hashes:
    """BLAKE3 of one tensor in the base and in every expert."""

    def __init__(self, k: int) -> None:
        self.base = blake3()
        self.experts = [blake3() for _ in range(k)]


class Reader:
    """The base and the experts of a match, for one thread.

    Adapters on the base are not hashed as they are read here: what they consist of is not what they are seen as.
    """

    def __init__(self, match: Match, adapters: Mapping[str, AdapterView | None]) -> None:
        self._match = match
        self._hashed = (True, *(view is None for view in adapters.values()))
        self._sources = (match.base, *match.experts.values())
        experts = (f"expert {name!r} ({source.label})" for name, source in match.experts.items())
        self._labels = (f"base {match.base.label}", *experts)
        self._buffer = Buffer()
        self._rows: dict[torch.dtype, Tensor] = {}

    def cuts(self, name: str, hashes: Hashes | None = None, *, check: bool, row: int = 1) -> Iterator[Piece]:
        """The tensor called `name` piece by piece, so that what is computed on one stays in the processor's cache.

        Pieces hold whole rows of `row` elements. `hashes` sees all bytes in order. Raises CheckpointError for NaN or
        infinity where `check` is set.
        """
        info = self._match.base.tensors[name]
        step = max(1, piece_elements(len(self._sources) - 1) // row) * row
        memory = self._memory(arithmetic(info.dtype), min(step, info.numel))
        for start in range(0, info.numel, step):
            stop = min(start + step, info.numel)
            rows = memory[:, : stop - start]
            self._fill(rows, name, start, hashes, check)
            yield Piece(start, rows)

    def samples(self, name: str) -> Iterator[tuple[Piece, float]]:
        """A few elements of every stretch of the tensor, and how many each of them stands for."""
        numel = self._match.base.tensors[name].numel
        for start in range(0, numel, _SAMPLED_STRETCH):
            count = min(_SAMPLE, numel - start)
            rows = torch.empty(len(self._sources), count, dtype=arithmetic(self._match.base.tensors[name].dtype))
            self._fill(rows, name, start, None, False)
            yield Piece(start, rows), min(_SAMPLED_STRETCH, numel - start) / count

    def _memory(self, dtype: torch.dtype, elements: int) -> Tensor:
        """[k + 1, at least `elements`], the same memory every time."""
        if dtype not in self._rows or self._rows[dtype].shape[1] < elements:
            self._rows[dtype] = torch.empty(len(self._sources), elements, dtype=dtype)
        return self._rows[dtype]

    def whole(self, name: str, hashes: Hashes | None = None, *, check: bool) -> Piece:
        """The tensor called `name` as one piece; `hashes` and `check` as for `blocks`."""
        info = self._match.base.tensors[name]
        rows = torch.empty(len(self._sources), info.numel, dtype=arithmetic(info.dtype))
        self._fill(rows, name, 0, hashes, check)
        return Piece(0, rows)

    def base_rows(self, name: str, rows: slice, columns: int, hashes: Hashes | None) -> Tensor:
        """Some rows of the base's tensor, seen as a matrix, in the arithmetic's dtype: [rows, columns].

        Raises CheckpointError for NaN or infinity.
        """
        stored = self._read(0, name, rows.start * columns, rows.stop * columns, hashes)
        require_finite(stored, name=name, label=self._labels[0])
        return stored.to(arithmetic(stored.dtype)).view(-1, columns)

    def raw(self, name: str, hashes: Hashes | None) -> Iterator[tuple[int, Tensor]]:
        """The base's tensor as stored: (start, elements)."""
        numel = self._match.base.tensors[name].numel
        for start in range(0, numel, _READ_ELEMENTS):
            stop = min(start + _READ_ELEMENTS, numel)
            yield start, self._read(0, name, start, stop, hashes)

    def _read(self, i: int, name: str, start: int, stop: int, hashes: Hashes | None) -> Tensor:
        stored = self._sources[i].read_flat(name, start, stop, buffer=self._buffer)
        if hashes is not None and self._hashed[i]:
            (hashes.experts[i - 1] if i else hashes.base).update(tensor_bytes(stored))
        return stored

    def _fill(self, rows: Tensor, name: str, start: int, hashes: Hashes | None, check: bool) -> None:
        """Elements from `start` on, as many as there are columns in `rows [k + 1, n]`."""
        stop = start + rows.shape[1]
        for i, row in enumerate(rows):
            row.copy_(self._read(i, name, start, stop, hashes))
        rows[1:].sub_(rows[0])
        # A sum is finite only if no term is NaN or infinite; one that merely overflows is looked at in full.
        if check and not math.isfinite(float(rows.sum())):
            self.require_finite(name)

    def require_finite(self, name: str) -> None:
        """CheckpointError if the tensor has NaN or infinity in any source."""
        for source, label in zip(self._sources, self._labels, strict=True):
            require_finite(source.read(name), name=name, label=label)
