"""The processes of a run, as its parts see them; alone, there is nobody to exchange anything with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Peers:
    """The processes of a run, this one among them: number `rank` of `size`. This is a run of one."""

    rank = 0
    size = 1

    def exchange(self, value: T) -> list[T]:
        """What every process gives, in the order of their numbers; each must come here equally often."""
        return [value]

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes; the others wait until it has."""
        return cast(T, self.exchange(make() if self.rank == 0 else None)[0])

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; all give tensors of one shape and dtype."""
        return values

    @contextmanager
    def after_first(self) -> Iterator[None]:
        """The first process goes through the block alone; then the others, who find what it has made."""
        if self.rank > 0:
            self.exchange(None)
        yield
        if self.rank == 0:
            self.exchange(None)

    def heed(self) -> None:
        """In the middle of long work: end it where another process has failed."""


class PeerLeft(Exception):
    """Another process left the run: why, that one says."""


ALONE = Peers()


def deal(costs: Mapping[str, int], parts: int) -> list[list[str]]:
    """Names dealt out so that every part costs about the same: the dearest first, each to whom has least."""
    found: list[list[str]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for name in sorted(costs, key=lambda name: -costs[name]):
        least = loads.index(min(loads))
        found[least].append(name)
        loads[least] += costs[name]
    return found


def union(parts: Sequence[Mapping[str, T]], order: Mapping[str, int]) -> dict[str, T]:
    """What every process has, by name, in `order`; names that it lacks come last."""
    found = {name: value for part in parts for name, value in part.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: order.get(name, len(order)))}
