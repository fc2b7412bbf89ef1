"""The processes of a run, played by threads."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from supermerge.distributed import Peers

T = TypeVar("T")


class Thread(Peers):
    """One of several threads that exchange as processes would: copies."""

    def __init__(self, rank: int, given: list[bytes], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(given)
        self._given, self._barrier = given, barrier

    def exchange(self, value: Any) -> list[Any]:
        self._given[self.rank] = pickle.dumps(value)
        self._barrier.wait(60)
        found = [pickle.loads(given) for given in self._given]
        self._barrier.wait(60)
        return found


def together(size: int, work: Callable[[Peers], T]) -> list[T]:
    """`work` in as many threads, each with its peers; what each gives."""
    given, barrier, threads = [b""] * size, threading.Barrier(size), torch.get_num_threads()

    def one(rank: int) -> T:
        try:
            return work(Thread(rank, given, barrier))
        except BaseException:
            barrier.abort()
            raise

    try:
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(one, range(size)))
    finally:
        torch.set_num_threads(threads)
