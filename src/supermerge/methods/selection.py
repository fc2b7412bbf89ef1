"""The n-th largest of a stream of numbers, exactly and in bounded memory, without sorting."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_LOW_BITS = 16
_BINS = 1 << _LOW_BITS
_MAGNITUDE = (1 << 31) - 1


class Selection:
    """The n-th largest number of a stream, or the n-th largest magnitude, in two passes.

    n is `wanted(how many numbers there were)`. fp32 numbers are seen as integers in the same order; the first pass
    counts them by their upper 16 bits, the second, inside the bin that holds the one wanted, by the lower ones.
    Counting commutes, so pieces may come in any order and from any thread. `value` is infinite for n = 0 and, where n
    exceeds how many there were, 0 for magnitudes and minus infinity else.
    """

    def __init__(self, wanted: Callable[[int], int], *, signed: bool = False) -> None:
        self.value = float("inf")
        self.done = False
        self._wanted, self._signed = wanted, signed
        self._rank, self._bin = 0, -1
        self._offset = _BINS // 2 if signed else 0
        self._counts = torch.zeros(_BINS // 2 + self._offset, dtype=torch.int64)
        self._lock = threading.Lock()

    @property
    def _low(self) -> int:
        """The smallest key of the bin that the second pass looks into."""
        return (self._bin - self._offset) << _LOW_BITS

    def observe(self, values: Tensor) -> None:
        """Count a piece of the stream, of any shape."""
        if self.done:
            return
        bits = values.to(torch.float32).contiguous().view(-1).view(torch.int32)
        # The order of negative numbers is that of their bits, reversed.
        keys = bits ^ ((bits >> 31) & _MAGNITUDE) if self._signed else bits & _MAGNITUDE
        if self._bin < 0:
            keys = keys.bitwise_right_shift_(_LOW_BITS)
            counts = torch.bincount(keys.add_(self._offset) if self._offset else keys, minlength=len(self._counts))
            with self._lock:
                self._counts += counts.cpu()
        else:
            # Unsigned numbers wrap around, so one comparison finds the bin; numpy picks few of many much faster.
            above = keys.cpu().numpy().view(np.uint32) - np.uint32(self._low & 0xFFFFFFFF)
            inside = torch.from_numpy(above[above < _BINS].astype(np.int64))
            with self._lock:
                self._counts.index_add_(0, inside, torch.ones_like(inside))

    def finish_pass(self) -> bool:
        """End a pass; True asks for another one over the same stream."""
        if self.done:
            return False
        from_above = self._counts.flip(0).cumsum(0)
        if self._bin < 0:
            total = int(from_above[-1])
            self._rank = self._wanted(total)
            if self._rank <= 0 or self._rank > total:
                missing = float("-inf") if self._signed else 0.0
                self.value, self.done = float("inf") if self._rank <= 0 else missing, True
                return False
        place = int(torch.searchsorted(from_above, self._rank))
        found = len(self._counts) - 1 - place
        if self._bin < 0:
            self._rank -= int(from_above[place - 1]) if place else 0
            self._bin, self._counts = found, torch.zeros(_BINS, dtype=torch.int64)
            return True
        key = torch.tensor(self._low | found, dtype=torch.int32)
        bits = key ^ ((key >> 31) & _MAGNITUDE)
        self.value, self.done = float(bits.view(torch.float32)), True
        return False


def nth_largest(values: Tensor, wanted: int, *, signed: bool = False) -> float:
    """The `wanted`-th largest number of `values`, or magnitude where not `signed`."""
    selection = Selection(lambda total: wanted, signed=signed)
    selection.observe(values)
    while selection.finish_pass():
        selection.observe(values)
    return selection.value
