"""What the first of several processes holds for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from supermerge.checkpoint import OutputDirectory
from supermerge.distributed import Peers
from supermerge.errors import ResourceError
from supermerge.run.state import StateDirectory


@contextmanager
def led(peers: Peers, out: OutputDirectory, states: StateDirectory) -> Iterator[None]:
    """The first process enters both, and leaves them in the end; the others use their paths.

    Raises ResourceError where a process does not see what the first one made.
    """
    with ExitStack() as stack:
        if peers.rank == 0:
            stack.enter_context(out)
            stack.enter_context(states)
        peers.exchange(None)
        if not out.staging.is_dir():
            raise ResourceError(
                f"{out.staging}: process {peers.rank} does not see this directory, which process 0 has made.",
                hint="All processes must write to one file system.",
            )
        yield
