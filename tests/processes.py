"""Processes as `torchrun` starts them: the same command with another RANK, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 400


@dataclass(frozen=True)
class Ended:
    """How each process ended, and what it said."""

    codes: list[int]
    errors: list[str]


def together(arguments: Sequence[str], cwd: Path, size: int, **environment: str) -> Ended:
    """Run `python …` in so many processes, and wait for all."""
    running = start(arguments, cwd, size, environment)
    errors = [process.communicate(timeout=PATIENCE)[1] for process in running]
    return Ended([process.returncode for process in running], errors)


def start(
    arguments: Sequence[str], cwd: Path, size: int, environment: Mapping[str, str]
) -> list[subprocess.Popen[str]]:
    """The same, without waiting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def leave() -> None:
    """End this process as the command ends.

    Torch's caches keep the group of a sharded model, whose threads may want a Python that is no more: they abort then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
