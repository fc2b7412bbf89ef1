"""How the processes of a run come together, and who of them tells of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from supermerge.distributed.peers import ALONE, Peers

if TYPE_CHECKING:
    from supermerge.distributed.group import ProcessGroup

_STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_joined: list[ProcessGroup] = []


def launched() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return all(name in os.environ for name in _STARTED_BY_TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def processes() -> int:
    """How many processes share this run."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def processes_here() -> int:
    """How many of them share this machine; all, where `torchrun` does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes())) if launched() else 1


def leads() -> bool:
    """Whether this is the process that tells of the run."""
    return not launched() or os.environ["RANK"] == "0"


def current() -> Peers:
    """The processes that came together around this call."""
    return _joined[0] if _joined else ALONE


@contextmanager
def united() -> Iterator[Peers]:
    """The processes of this run, come together; a block inside another has the same ones.

    An error of one ends the block in all: the process that it happened in raises it, the others `ToldElsewhere`, which
    has its exit code. Raises ResourceError where the others do not come, InterruptedRun where one is lost on the way.
    """
    if not launched():
        yield ALONE
        return
    from supermerge.distributed.group import ProcessGroup

    outermost = not _joined
    if outermost:
        _joined.append(ProcessGroup.joined())
    group = _joined[0]
    try:
        yield group
    except BaseException as error:
        ended = group.ended_by(error)
        if ended is error:
            raise
        raise ended from error
    finally:
        if outermost:
            _joined.clear()
            group.close()
