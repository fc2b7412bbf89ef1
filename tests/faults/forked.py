"""Runs of the command in forked children of a process that has imported everything: a run takes a fraction of a second.

A child can be told to do something at its n-th step, a step being anything that Python reports about files (opening,
renaming, making, removing), so that faults hit between any two of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supermerge.cli.guard import quiet_when_interrupted

STEPS = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "os.chmod",
    "shutil.rmtree",
)


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, or minus the number of the signal; what it said; how many steps it took."""

    code: int
    said: str
    steps: int


def warm_up(directory: Path) -> None:
    """Import everything that a run imports, by making one: into `directory`, where the tiny example is.

    Pictures are blank and the page's script is empty from now on: drawing them takes seconds, and a browser in threads
    does not survive a fork. They are written like the real ones.
    """
    import supermerge.report.page
    from supermerge.recipe import Recipe
    from supermerge.report.charts.chart import Chart
    from supermerge.run import run as merge
    from supermerge.verify import verify

    Chart.png = lambda self, *, scale=2: b"\x89PNG" + bytes(20_000)
    supermerge.report.page._vega = lambda: "/* vega */" * 50_000
    done = merge(Recipe.load(directory / "recipe.yaml", ["method.steps=1"]), output=directory / "warm")
    verify(done.directory)
    shutil.rmtree(done.directory)


def run(
    *arguments: str | Path,
    cwd: Path,
    before: Callable[[], object] | None = None,
    at_step: tuple[int, Callable[[], object]] | None = None,
    kill_after: tuple[float, signal.Signals] | None = None,
) -> Ended:
    """The command in a child: `before` it starts, and `at_step` n, things are done in it; or it is killed from here."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counted:
        started, start = os.pipe()
        child = os.fork()
        if child == 0:
            words = [str(argument) for argument in arguments]
            _be_the_command(words, cwd, before, at_step, said.fileno(), counted.fileno(), start)
        os.read(started, 1)
        os.close(started)
        os.close(start)
        if kill_after is not None:
            time.sleep(kill_after[0])
            os.kill(child, kill_after[1])
        _, status = os.waitpid(child, 0)
        said.seek(0)
        counted.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), said.read().decode(errors="replace"), len(counted.read()))


def _be_the_command(
    arguments: list[str],
    cwd: Path,
    before: Callable[[], object] | None,
    at_step: tuple[int, Callable[[], object]] | None,
    said: int,
    counted: int,
    start: int,
) -> None:
    code = 1
    try:
        os.chdir(cwd)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["supermerge", *arguments]
        if before is not None:
            before()
        from supermerge.cli.main import main

        quiet_when_interrupted()
        os.write(start, b".")
        _count_steps(at_step, counted)
        main()
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException as error:  # noqa: BLE001
        os.write(2, f"Traceback: {type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _count_steps(at_step: tuple[int, Callable[[], object]] | None, counted: int) -> None:
    number = 0

    def see(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        if event not in STEPS:
            return
        number += 1
        os.write(counted, b".")
        if at_step is not None and number == at_step[0]:
            at_step[1]()

    sys.addaudithook(see)
