"""What some methods must know of the whole model before they can merge one tensor, gathered in streamed passes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from supermerge.methods.context import Context

_LOW_BITS = 16
_LOW_BINS = 1 << _LOW_BITS
_HIGH_BINS = 1 << (31 - _LOW_BITS)
_MAGNITUDE = (1 << 31) - 1


class Survey(ABC):
    """Statistics of all tensors that one method merges.

    Every pass calls `observe` once for every piece of every tensor, from any thread and in any order, then
    `finish_pass` once. The outcome may not depend on that order.
    """

    @abstractmethod
    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Take in one piece: `base [*shape]`, `taus [k, *shape]`."""

    @abstractmethod
    def finish_pass(self) -> bool:
        """End a pass; True asks for another one over the same tensors."""


class Selection:
    """The n-th largest magnitude of a stream of numbers, exactly, in two passes and bounded memory.

    The bits of a non-negative fp32 number are ordered like the number: the first pass counts by the upper bits, the
    second, inside the bin that holds the wanted number, by the lower ones. Counting commutes, so pieces may come in
    any order and from any thread. `value` is 0 where at least everything is wanted and infinite where nothing is.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.value = float("inf")
        self.done = wanted <= 0
        self._bin: int | None = None
        self._counts = torch.zeros(_HIGH_BINS, dtype=torch.int64)
        self._lock = threading.Lock()

    def observe(self, values: Tensor) -> None:
        """Count the magnitudes in a piece of the stream, of any shape."""
        if self.done:
            return
        bits = values.to(torch.float32).contiguous().view(-1).view(torch.int32)
        if self._bin is None:
            counts = torch.bincount((bits >> _LOW_BITS) & (_HIGH_BINS - 1), minlength=_HIGH_BINS)
        else:
            # Below and above the bin count as its two neighbours, which are then left out.
            inside = (bits & _MAGNITUDE) - ((self._bin << _LOW_BITS) - 1)
            counts = torch.bincount(inside.clamp_(0, _LOW_BINS + 1), minlength=_LOW_BINS + 2)[1:-1]
        with self._lock:
            self._counts += counts.cpu()

    def finish_pass(self) -> bool:
        """End a pass; True asks for another one over the same stream."""
        if self.done:
            return False
        from_above = self._counts.flip(0).cumsum(0)
        if int(from_above[-1]) < self.wanted:
            self.value, self.done = 0.0, True
            return False
        place = int(torch.searchsorted(from_above, self.wanted))
        found = len(self._counts) - 1 - place
        if self._bin is None:
            self.wanted -= int(from_above[place - 1]) if place else 0
            self._bin, self._counts = found, torch.zeros(_LOW_BINS, dtype=torch.int64)
            return True
        bits = torch.tensor((self._bin << _LOW_BITS) | found, dtype=torch.int32)
        self.value, self.done = float(bits.view(torch.float32)), True
        return False


def nth_largest(values: Tensor, wanted: int) -> float:
    """The `wanted`-th largest magnitude of `values`; infinite for 0, and 0 beyond their number."""
    selection = Selection(wanted)
    while True:
        selection.observe(values)
        if not selection.finish_pass():
            return selection.value


class MagnitudeSurvey(Survey):
    """Per expert, the magnitude of its task vector that `wanted[i]` elements of the whole model reach."""

    def __init__(self, wanted: Sequence[int]) -> None:
        self._selections = [Selection(count) for count in wanted]

    @property
    def thresholds(self) -> list[float]:
        """[k]."""
        return [selection.value for selection in self._selections]

    @property
    def done(self) -> bool:
        """Whether all thresholds are known."""
        return all(selection.done for selection in self._selections)

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Count the magnitudes of one piece."""
        for selection, tau in zip(self._selections, taus, strict=True):
            selection.observe(tau)

    def finish_pass(self) -> bool:
        """Two passes in all, fewer where the answer is known."""
        for selection in self._selections:
            selection.finish_pass()
        return not self.done
