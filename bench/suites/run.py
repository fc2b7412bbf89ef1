"""`run`: make the cells that are missing, each in a process of its own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from suites.cells import Cell
from suites.prepare import home
from suites.rows import ROWS
from suites.tasks import Suite

SUITE = Path(__file__).parents[1] / "suite.py"


def cells(suite: Suite, budget: int, only: Sequence[str], draws: Sequence[int]) -> Iterator[Cell]:
    """All cells: first the first draw of every row, then the second, then the third."""
    for draw in draws:
        for row in ROWS:
            if only and row.name not in only:
                continue
            if row.labels or draw == draws[0]:
                yield Cell(suite.name, row.name, budget, draw if row.labels else None)


def run(suite: Suite, budget: int, only: Sequence[str], draws: Sequence[int], jobs: int) -> int:
    """Make what is missing, `jobs` cells at a time; how many failed. Several commands may run at once."""
    if jobs > 1:
        # Cells are claimed one by one, so runners share the work without speaking to each other.
        command = [sys.executable, SUITE, suite.name, "run", *only, "--budget", str(budget), "--jobs", "1"]
        command += ["--draws", *map(str, draws)]
        runners = [subprocess.Popen(command) for _ in range(jobs)]
        return sum(runner.wait() for runner in runners)
    failed = 0
    for cell in cells(suite, budget, only, draws):
        if not cell.file.exists():
            with _claimed(suite, cell) as ours:
                if ours and not cell.file.exists():
                    failed += not _made(suite, cell)
    return failed


def _made(suite: Suite, cell: Cell) -> bool:
    log = home(suite) / "logs" / f"{cell.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, SUITE, suite.name, "cell", cell.row, "--budget", str(cell.budget)]
    command += [] if cell.draw is None else ["--draw", str(cell.draw)]
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    sys.stderr.write(f"{cell.name}: {'done' if done.returncode == 0 else f'failed, see {log}'}\n")
    return done.returncode == 0


@contextmanager
def _claimed(suite: Suite, cell: Cell) -> Iterator[bool]:
    """Whether no other process is at this cell."""
    file = home(suite) / "locks" / cell.name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
