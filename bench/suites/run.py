"""`run`: make the cells that are missing, in processes of their own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from suites.cells import Cell
from suites.prepare import home
from suites.rows import ROWS
from suites.tasks import Suite

SUITE = Path(__file__).parents[1] / "suite.py"


@dataclass(frozen=True, slots=True)
class Wish:
    """Which cells are wanted: all rows where `only` is empty; `left_out` as in cells."""

    budgets: Sequence[int]
    only: Sequence[str]
    draws: Sequence[int]
    left_out: bool = False


def groups(suite: Suite, wish: Wish) -> Iterator[list[Cell]]:
    """All cells, those that are made together in one list: first the first draw of every row, then the second."""
    for draw in wish.draws:
        for row in ROWS:
            if (wish.only and row.name not in wish.only) or (wish.left_out and row.kind != "static"):
                continue
            if row.labels:
                found = [Cell(suite.name, row.name, budget, draw, wish.left_out) for budget in wish.budgets]
                yield from [found] if row.tune else ([one] for one in found)
            elif draw == wish.draws[0]:
                yield [Cell(suite.name, row.name, wish.budgets[0], None, wish.left_out)]


def run(suite: Suite, wish: Wish, jobs: int) -> int:
    """Make what is missing, `jobs` processes at a time; how many failed. Several commands may run at once."""
    if jobs > 1:
        # Cells are claimed one by one, so runners share the work without speaking to each other.
        command = [sys.executable, SUITE, suite.name, "run", *wish.only, "--budget", *map(str, wish.budgets)]
        command += ["--jobs", "1", "--draws", *map(str, wish.draws), *(["--left-out"] if wish.left_out else [])]
        runners = [subprocess.Popen(command) for _ in range(jobs)]
        return sum(runner.wait() for runner in runners)
    failed = 0
    for together in groups(suite, wish):
        with ExitStack() as claims:
            missing = [
                cell
                for cell in together
                if not cell.file.exists() and claims.enter_context(_claimed(suite, cell)) and not cell.file.exists()
            ]
            if missing:
                failed += not _made(suite, missing)
    return failed


def _made(suite: Suite, cells: Sequence[Cell]) -> bool:
    names, first = ", ".join(cell.name for cell in cells), cells[0]
    log = home(suite) / "logs" / f"{first.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, SUITE, suite.name, "cell", first.row, "--budget", *(str(cell.budget) for cell in cells)]
    command += [] if first.draw is None else ["--draw", str(first.draw)]
    command += ["--left-out"] if first.left_out else []
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    sys.stderr.write(f"{names}: {'done' if done.returncode == 0 else f'failed, see {log}'}\n")
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
