"""A process group of torch.distributed, and how its processes end together when one of them fails or is lost.

Whoever fails writes so into the group's store, and closes its connections, which wakes all that wait for it. Everyone
then acknowledges, so that nobody is still writing when the first of them tidies up or exits; and says that it has heard
the reason, so that nobody asks a store that is gone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from supermerge.distributed.peers import PeerLeft, Peers
from supermerge.errors import InterruptedRun, ResourceError, ToldElsewhere, exit_code_of

T = TypeVar("T")
_JOINING = timedelta(minutes=5)
# A process that dies is noticed at once, its connections being closed; this is for machines that fall silent.
_SILENCE = timedelta(hours=6)
_GRACE, _POLL, _HEED = 10.0, 0.02, 1.0
# What RuntimeErrors say that are about the others, not about this process.
_ABOUT_OTHERS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


class DefaultGroup(Peers):
    """The processes of the default group of torch.distributed, which somebody else has made."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def exchange(self, value: T) -> list[T]:
        """See `Peers.exchange`."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """See `Peers.sum`."""
        with_cpu = "cpu" in str(dist.get_backend_config())
        total = values.to("cpu" if with_cpu else torch.accelerator.current_accelerator(), copy=True)
        dist.all_reduce(total)
        return total.to(values.device)


class ProcessGroup(DefaultGroup):
    """The processes that `torchrun` started, connected here."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store = store
        self._ended = False
        self._heeded = 0.0
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=_SILENCE
        )
        super().__init__()

    @classmethod
    def joined(cls) -> Self:
        """Wait for the others. ResourceError where some do not come."""
        if dist.is_initialized():
            raise ResourceError(
                "torch.distributed is in use by the calling program already.",
                hint="Call `supermerge.run` before init_process_group, from every process.",
            )
        try:
            store, rank, size = next(iter(rendezvous("env://", timeout=_JOINING)))
            return cls(PrefixStore("supermerge", store), rank, size)
        except RuntimeError as error:
            raise ResourceError(
                f"The processes of this run did not come together within {_JOINING.seconds} s: "
                f"{str(error).splitlines()[0]}",
                hint="Every process that torchrun starts must run the same command.",
            ) from error

    def exchange(self, value: T) -> list[T]:
        """See `Peers.exchange`. Raises PeerLeft."""
        self._require_all_well()
        try:
            return super().exchange(value)
        except RuntimeError as error:
            raise PeerLeft(str(error)) from error

    def heed(self) -> None:
        """See `Peers.heed`; asks once a second at most. Raises PeerLeft."""
        if time.monotonic() - self._heeded > _HEED:
            self._heeded = time.monotonic()
            self._require_all_well()

    def close(self) -> None:
        """Let go of the connections."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def ended_by(self, error: BaseException) -> BaseException:
        """Agree with the others on the one error that ends the run; what this process is to raise."""
        if self._ended:
            return error
        self._ended = True
        with _undisturbed():
            try:
                return self._agreed(error)
            except RuntimeError:  # the store went with the process that held it
                if _is_about_others(error):
                    return _lost([0], self.size) if self.rank == 1 else ToldElsewhere("", InterruptedRun.exit_code)
                return error

    def _agreed(self, error: BaseException) -> BaseException:
        consequence = _is_about_others(error)
        # An interruption may be torchrun's, because another process died.
        told = None if consequence or isinstance(error, KeyboardInterrupt) else self._claim(error)
        self.close()
        self._store.set(f"left/{self.rank}", "")
        missing = self._missing("left", until_told=told is None)
        if told is None and missing:
            if self._store.check(["failed"]):  # known before all had left
                missing = self._missing("left")
            else:
                error, consequence = _lost(missing, self.size), False
        if told is None and not consequence:
            self._claim(error)
        self._store.wait(["failed"], timedelta(seconds=_GRACE))
        rank, code = self._store.get("failed").decode().split()
        self._store.set(f"heard/{self.rank}", "")
        if self.rank == 0:  # the store goes with this process
            self._missing("heard", besides=missing)
        if int(rank) == self.rank:
            return error
        return ToldElsewhere(f"Process {rank} of this run failed, and says why.", int(code))

    def _claim(self, error: BaseException) -> bytes:
        """Tell all that this is the error that ends the run, unless there is one already."""
        return self._store.compare_set("failed", "", f"{self.rank} {exit_code_of(error)}")

    def _missing(self, mark: str, *, besides: Collection[int] = (), until_told: bool = False) -> list[int]:
        """Wait a moment until everybody `besides` those has set the mark, or the reason is known; who has not."""
        end = time.monotonic() + _GRACE
        while True:
            missing = [r for r in range(self.size) if r not in besides and not self._store.check([f"{mark}/{r}"])]
            over = not missing or time.monotonic() > end
            if over or (until_told and self._store.check(["failed"])):
                return missing
            time.sleep(_POLL)

    def _require_all_well(self) -> None:
        try:
            failed = self._store.check(["failed"])
        except RuntimeError as error:
            raise PeerLeft(str(error)) from error
        if failed:
            raise PeerLeft("another process failed")


def _is_about_others(error: BaseException) -> bool:
    if isinstance(error, PeerLeft):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ABOUT_OTHERS)


def _lost(ranks: list[int], size: int) -> InterruptedRun:
    return InterruptedRun(
        f"Lost process {', '.join(map(str, ranks))} of {size} (numbered from 0): it died, or its machine is out of "
        "reach.",
        hint="Nothing half-written is left. The same command continues where a run can be continued.",
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait: whoever stops one process of a run stops all, and they are leaving."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    for sign in before:
        signal.signal(sign, signal.SIG_IGN)
    try:
        yield
    finally:
        for sign, handler in before.items():
            with suppress(TypeError):
                signal.signal(sign, handler)
