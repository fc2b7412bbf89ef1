"""Work on several tensors at once, so that reading, computing and writing overlap, in bounded memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


_most_threads: ContextVar[int] = ContextVar("_most_threads", default=8)


@contextmanager
def at_most_threads(threads: int) -> Iterator[None]:
    """While entered, merges that are not told how many threads to use have no more than these: each holds memory."""
    token = _most_threads.set(threads)
    try:
        yield
    finally:
        _most_threads.reset(token)


def default_threads() -> int:
    """As many as torch uses, at least two (so that one can wait for the disk), at most eight or `at_most_threads`."""
    return min(_most_threads.get(), max(2, torch.get_num_threads()))


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, up to some dozens of megabytes.

    glibc gives freed memory back to the system at once, and takes it again page by page, until it has seen one large
    block come and go: then it keeps as much. A merge makes and frees small tensors all the time, so one large block,
    never touched, is shown to it. Elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def give_back_freed_memory() -> None:
    """Hand what the allocator kept back to the system: what comes after a merge needs memory of other kinds.

    Only glibc offers it; elsewhere this does nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def parallel(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    threads: int,
    cost: Callable[[Item], int],
    limit: int,
    ordered: bool,
) -> Iterator[Result]:
    """Results of `work` for every item, in the order of the items where `ordered`, else as they come.

    Items whose results were not yet taken cost at most `limit` together, unless a single one costs more. Every torch
    operation runs on one thread, which keeps results independent of `threads`. The first error stops everything: the
    first in the order of the items, whichever thread fails first.
    """
    previous = torch.get_num_threads()
    keep_freed_memory()
    if threads == 1:
        torch.set_num_threads(1)
        try:
            yield from map(work, items)
        finally:
            torch.set_num_threads(previous)
        return
    pool = ThreadPoolExecutor(threads, "supermerge", initializer=torch.set_num_threads, initargs=(1,))
    running: dict[Future[Result], int] = {}
    try:
        for item in items:
            need = cost(item)
            while running and (len(running) >= 2 * threads or sum(running.values()) + need > limit):
                yield _take(running, ordered)
            running[pool.submit(work, item)] = need
        while running:
            yield _take(running, ordered)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(previous)


def _take(running: dict[Future[Result], int], ordered: bool) -> Result:
    done = next(iter(running)) if ordered else wait(running, return_when=FIRST_COMPLETED).done.pop()
    if done.exception() is not None:
        done = next(future for future in running if future.exception() is not None)
    del running[done]
    return done.result()
