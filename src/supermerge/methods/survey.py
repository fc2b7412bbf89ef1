"""What some methods must know of a whole tensor or model before they can merge a piece of it, in streamed passes."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from supermerge.methods.context import BLOCK, PART, Context
from supermerge.methods.measured import Statistics
from supermerge.methods.selection import Selection


class Account(Protocol):
    """What a survey counts in one pass, by one or several processes: commutes, so that it can be counted apart."""

    def entries(self) -> Any:
        """What this process counted since `replace`, or ever; can be pickled."""

    def replace(self, parts: Sequence[Any]) -> None:
        """Put the entries of all processes, this one among them, in the place of its own."""


class Survey(ABC):
    """Statistics of one tensor, or of all tensors that one method merges.

    Every pass calls `observe` once for every piece of every tensor, from any thread and in any order, then
    `finish_pass` once. The outcome may not depend on that order, nor on how tensors were cut.
    """

    def accounts(self) -> Sequence[Account] | None:
        """All that passes change, so that several processes can share a pass; None: each must look at everything."""
        return None

    @abstractmethod
    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Take in one piece: `base [*shape]`, `taus [k, *shape]`."""

    @abstractmethod
    def finish_pass(self) -> bool:
        """End a pass; True asks for another one over the same tensors."""


class MeasuredSurvey(Survey):
    """A survey that looks at the statistics of the experts too; `statistics` gives those of a piece."""

    def __init__(self) -> None:
        self.statistics: Callable[[Context, Tensor], Statistics] = lambda context, base: Statistics()


class PreviewedSurvey(Survey):
    """A survey that needs fewer passes after a look at a sample."""

    @abstractmethod
    def preview(self, context: Context, base: Tensor, taus: Tensor, weight: float) -> None:
        """Before the first pass: a few elements of one tensor, like a piece, each of which stands for `weight`."""


class Totals:
    """Sums, by key, of numbers that come in any order and from any thread: rounded once, so order does not matter."""

    def __init__(self) -> None:
        self._terms: defaultdict[object, list[float]] = defaultdict(list)
        self._elsewhere: defaultdict[object, list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    @property
    def keys(self) -> set[object]:
        """What there are sums of."""
        return {*self._terms, *self._elsewhere}

    def entries(self) -> dict[object, list[float]]:
        """See `Account`: what was added since `replace`."""
        return dict(self._terms)

    def replace(self, parts: Sequence[Mapping[object, list[float]]]) -> None:
        """See `Account`; what was replaced before stays."""
        self._terms.clear()
        for part in parts:
            for key, terms in part.items():
                self._elsewhere[key] += terms

    def add(self, key: object, term: float) -> None:
        """One more term."""
        with self._lock:
            self._terms[key].append(term)

    def add_to_each(self, terms: Sequence[float]) -> None:
        """One more term for each of the keys 0, 1, 2, …"""
        with self._lock:
            for key, term in enumerate(terms):
                self._terms[key].append(term)

    def add_blocks(self, key: object, values: Tensor) -> None:
        """The sum of `values`, a piece of a tensor, block by block."""
        for block in values.reshape(-1).split(BLOCK):
            self.add(key, float(block.sum(dtype=torch.float64)))

    def of(self, key: object) -> float:
        """The sum so far; 0 for a key without terms."""
        return math.fsum((*self._terms.get(key, ()), *self._elsewhere.get(key, ())))


class MagnitudeSurvey(PreviewedSurvey):
    """Per expert, the magnitude that `wanted[i](number of elements)` elements of its task vector reach."""

    def __init__(self, wanted: Sequence[Callable[[int], int]]) -> None:
        self._selections = [Selection(count) for count in wanted]

    @property
    def thresholds(self) -> list[float]:
        """[k]."""
        return [selection.value for selection in self._selections]

    @property
    def done(self) -> bool:
        """Whether all thresholds are known."""
        return all(selection.done for selection in self._selections)

    def accounts(self) -> Sequence[Account]:
        """The counts of every expert."""
        return self._selections

    def preview(self, context: Context, base: Tensor, taus: Tensor, weight: float) -> None:
        """See where the magnitudes lie."""
        for selection, tau in zip(self._selections, taus, strict=True):
            selection.preview(tau, weight)

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Count the magnitudes of one piece."""
        for selection, tau in zip(self._selections, taus, strict=True):
            selection.observe(tau)

    def finish_pass(self) -> bool:
        """One pass after a preview that was right, else up to three."""
        for selection in self._selections:
            selection.finish_pass()
        return not self.done


class Largest:
    """The largest of numbers that come in any order and from any thread, by key."""

    def __init__(self) -> None:
        self._found: dict[object, float] = {}
        self._lock = threading.Lock()

    def add(self, key: object, value: float) -> None:
        """One more number."""
        with self._lock:
            self._found[key] = max(self._found.get(key, value), value)

    def of(self, key: object) -> float:
        """The largest so far; minus infinity for a key without numbers."""
        return self._found.get(key, float("-inf"))

    def entries(self) -> dict[object, float]:
        """See `Account`."""
        return dict(self._found)

    def replace(self, parts: Sequence[Mapping[object, float]]) -> None:
        """See `Account`."""
        for part in parts:
            for key, value in part.items():
                self.add(key, value)


class GramSurvey(Survey):
    """Inner products of (θp, τ1 … τk), of one tensor or of the model, in one pass."""

    def __init__(self, k: int) -> None:
        self._size = k + 1
        self._totals = Totals()

    def accounts(self) -> Sequence[Account]:
        """The products."""
        return [self._totals]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Add the products of one piece, block by block in fp64."""
        flat, rows = base.reshape(-1), taus.reshape(len(taus), -1)
        wide = torch.empty(self._size, min(PART, len(flat)), dtype=torch.float64)
        for start in range(0, len(flat), PART):
            part = wide[:, : min(PART, len(flat) - start)]
            part[0] = flat[start : start + PART]
            part[1:] = rows[:, start : start + PART]
            self._totals.add_to_each((part @ part.T).flatten().tolist())

    def finish_pass(self) -> bool:
        """One pass is enough."""
        return False

    @cached_property
    def gram(self) -> Tensor:
        """[k + 1, k + 1] in fp64, the base first; after the pass."""
        products = [self._totals.of(place) for place in range(self._size**2)]
        return torch.tensor(products, dtype=torch.float64).view(self._size, self._size)
