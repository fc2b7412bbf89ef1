"""Reads a tensor of the base and of every expert piece by piece: fp32 values, finite, hashed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from blake3 import blake3
from torch import Tensor

from supermerge.checkpoint import Buffer, Match, TensorSource, require_finite
from supermerge.checkpoint.hashing import tensor_bytes
from supermerge.methods import BLOCK

_PIECE_ELEMENTS = 16 * BLOCK


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements of a tensor from flat position `start` on: `rows [k + 1, n]`, θp and τ1 … τk, until the next is read."""

    start: int
    rows: Tensor


def piece_elements(k: int) -> int:
    """Elements of one piece: a multiple of BLOCK, smaller for more experts, so that memory does not grow with them."""
    return max(1, _PIECE_ELEMENTS // (k + 1) // BLOCK) * BLOCK


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """What a tensor is merged in: fp32, or fp64 where it is stored so."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Reader:
    """The base and the experts of a match, for one thread."""

    def __init__(self, match: Match) -> None:
        self._match = match
        self._buffers = Buffer(), Buffer()
        self._rows: dict[torch.dtype, Tensor] = {}

    def pieces(self, name: str, *, whole: bool, hashes: Hashes | None = None) -> Iterator[Piece]:
        """The tensor called `name` in pieces, or as one piece where `whole`; `hashes` sees all bytes in order."""
        info, experts = self._match.base.tensors[name], self._match.experts
        dtype = arithmetic(info.dtype)
        step = info.numel if whole else min(info.numel, piece_elements(len(experts)))
        for start in range(0, max(info.numel, 1), max(step, 1)):
            stop = min(start + step, info.numel)
            rows = self._take(dtype, len(experts) + 1, stop - start, whole)
            rows[0].copy_(self._read(self._match.base, name, start, stop, 0, hashes and hashes.base))
            for i, (expert, source) in enumerate(experts.items()):
                stored = self._read(source, name, start, stop, 1, hashes and hashes.experts[i])
                tau = rows[i + 1].copy_(stored).sub_(rows[0])
                self._check(tau, name, expert, source)
            yield Piece(start, rows)

    def raw(self, name: str, hashes: Hashes | None) -> Iterator[tuple[int, Tensor]]:
        """The base's tensor as stored, in pieces: (start, elements)."""
        numel = self._match.base.tensors[name].numel
        for start in range(0, max(numel, 1), _PIECE_ELEMENTS):
            stop = min(start + _PIECE_ELEMENTS, numel)
            yield start, self._read(self._match.base, name, start, stop, 0, hashes and hashes.base)

    def _read(self, source: TensorSource, name: str, start: int, stop: int, slot: int, hasher: blake3 | None) -> Tensor:
        stored = source.read_flat(name, start, stop, buffer=self._buffers[slot])
        if hasher is not None:
            hasher.update(tensor_bytes(stored))
        return stored

    def _take(self, dtype: torch.dtype, count: int, length: int, whole: bool) -> Tensor:
        if whole:
            return torch.empty(count, length, dtype=dtype)
        if dtype not in self._rows:
            self._rows[dtype] = torch.empty(count, piece_elements(count - 1), dtype=dtype)
        return self._rows[dtype][:, :length]

    def _check(self, tau: Tensor, name: str, expert: str, source: TensorSource) -> None:
        # NaN and infinity in either tensor survive the difference and the sum; a sum that merely overflows does not.
        if tau.numel() and not torch.isfinite(tau.sum()):
            base = self._match.base
            require_finite(base.read(name), name=name, label=f"base {base.label}")
            require_finite(source.read(name), name=name, label=f"expert {expert!r} ({source.label})")


class Hashes:
    """BLAKE3 of one tensor in the base and in every expert."""

    def __init__(self, k: int) -> None:
        self.base = blake3()
        self.experts = [blake3() for _ in range(k)]
