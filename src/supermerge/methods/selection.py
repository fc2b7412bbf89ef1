"""The n-th largest of a stream of numbers, exactly and in bounded memory, without sorting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Keys = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
_LOW_BITS = 16
_BINS = 1 << _LOW_BITS
_MAGNITUDE = (1 << 31) - 1


class Selection:
    """The n-th largest number of a stream, or the n-th largest magnitude, in two passes, or in one.

    n is `wanted(how many numbers there were)`. fp32 numbers are seen as integers in the same order; the first pass
    counts them by their upper 16 bits, the second, inside the bin that holds the one wanted, by the lower ones.
    A sample of the stream (`preview`) tells beforehand where the one wanted will be: one pass then counts the numbers
    above and, one by one, those near, and starts over only if the guess was wrong. Counting commutes, so pieces may
    come in any order and from any thread. `value` is infinite for n = 0 and, where n exceeds how many there were, 0 for
    magnitudes and minus infinity else.
    """

    def __init__(self, wanted: Callable[[int], int], *, signed: bool = False) -> None:
        self.value = float("inf")
        self.done = False
        self._wanted, self._signed = wanted, signed
        self._offset = _BINS // 2 if signed else 0
        self._sampled, self._guessed = np.zeros(_BINS // 2 + self._offset), True
        # What is counted: all numbers by their bin, or those of `_span` keys from `_low` on, and how many are above.
        self._low, self._span = -1, 0
        self._counts = self._by_bin()
        self._total = self._above = 0
        self._lock = threading.Lock()

    def preview(self, values: Tensor, weight: float) -> None:
        """A sample of the stream, before the first pass; each number stands for `weight` of them."""
        bins = (self._keys(values) >> _LOW_BITS) + self._offset
        with self._lock:
            np.add.at(self._sampled, bins, weight)
            self._guessed = False

    def observe(self, values: Tensor) -> None:
        """Count a piece of the stream, of any shape."""
        if self.done:
            return
        with self._lock:
            self._guess()
        keys = self._keys(values)
        if not self._span:
            counts = np.bincount((keys >> _LOW_BITS) + self._offset, minlength=len(self._counts))
            with self._lock:
                self._counts += counts
                self._total += len(keys)
            return
        top = self._low + self._span
        above = keys >= top if top <= _MAGNITUDE else np.zeros(len(keys), np.bool_)
        near = keys >= self._low
        near ^= above
        places = _where(near, keys) - np.int32(self._low)
        with self._lock:
            np.add.at(self._counts, places, 1)
            self._total += len(keys)
            self._above += int(np.count_nonzero(above))

    def entries(self) -> tuple[Counts, int, int] | None:
        """What was counted in this pass, of a stream of which several processes see a part, and preview the same."""
        if self.done:
            return None
        with self._lock:
            self._guess()
        return self._counts, self._total, self._above

    def replace(self, parts: Sequence[tuple[Counts, int, int] | None]) -> None:
        """Put what all processes counted in the place of what this one did."""
        counted = [part for part in parts if part is not None]
        if counted:
            self._counts = np.sum([counts for counts, _, _ in counted], axis=0)
            self._total, self._above = sum(total for _, total, _ in counted), sum(above for _, _, above in counted)

    def finish_pass(self) -> bool:
        """End a pass; True asks for another one over the same stream."""
        if self.done:
            return False
        rank = self._wanted(self._total)
        if rank <= 0 or rank > self._total:
            missing = float("-inf") if self._signed else 0.0
            self.value, self.done = float("inf") if rank <= 0 else missing, True
            return False
        from_above = self._above + np.cumsum(self._counts[::-1])
        if self._span and not self._above < rank <= from_above[-1]:
            self._count(-1, 0)  # not where the sample had it
            return True
        place = int(np.searchsorted(from_above, rank))
        found = len(self._counts) - 1 - place
        if not self._span:
            self._count((found - self._offset) << _LOW_BITS, _BINS)
            return True
        key = np.int32(self._low + found)
        self.value, self.done = float((key ^ ((key >> 31) & np.int32(_MAGNITUDE))).view(np.float32)), True
        return False

    def _keys(self, values: Tensor) -> Keys:
        """The numbers as integers in the same order, [n]."""
        bits = values.to(torch.float32).contiguous().view(-1).view(torch.int32)
        # The order of negative numbers is that of their bits, reversed.
        keys = bits ^ ((bits >> 31) & _MAGNITUDE) if self._signed else bits & _MAGNITUDE
        return keys.cpu().numpy()

    def _guess(self) -> None:
        """Where the sample says that the number wanted is: in one of three bins."""
        if self._guessed:
            return
        self._guessed = True
        from_above = np.cumsum(self._sampled[::-1])
        total = round(float(from_above[-1]))
        rank = self._wanted(total)
        if 0 < rank <= total:
            found = len(self._sampled) - 1 - min(int(np.searchsorted(from_above, rank)), len(self._sampled) - 1)
            first, last = max(found - 1, 0), min(found + 1, len(self._sampled) - 1)
            self._count((first - self._offset) << _LOW_BITS, (last - first + 1) << _LOW_BITS)
        self._sampled[:] = 0

    def _count(self, low: int, span: int) -> None:
        """Start over, counting the keys from `low` on, or, where `span` is 0, all by their bin."""
        self._low, self._span = low, span
        self._counts = np.zeros(span, np.int64) if span else self._by_bin()
        self._total = self._above = 0

    def _by_bin(self) -> Counts:
        return np.zeros(len(self._sampled), np.int64)


def _where(few: npt.NDArray[np.bool_], keys: Keys) -> Keys:
    """`keys[few]`, looking at eight places at once."""
    whole = len(keys) // 8 * 8
    eights, rows = few[:whole].reshape(-1, 8), keys[:whole].reshape(-1, 8)
    some = np.flatnonzero(few[:whole].view(np.uint64))
    return np.concatenate((rows[some][eights[some]], keys[whole:][few[whole:]]))


def nth_largest(values: Tensor, wanted: int, *, signed: bool = False) -> float:
    """The `wanted`-th largest number of `values`, or magnitude where not `signed`."""
    selection = Selection(lambda total: wanted, signed=signed)
    selection.observe(values)
    while selection.finish_pass():
        selection.observe(values)
    return selection.value
