"""Errors: one message on stderr, the exit code of the kind, a traceback only with --debug."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from supermerge import errors
from supermerge.cli.guard import guarded


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.RecipeError, 3),
        (errors.CheckpointError, 4),
        (errors.ResourceError, 5),
        (errors.DataError, 6),
        (errors.RefusedError, 7),
        (errors.NetworkError, 8),
        (errors.InterruptedRun, 130),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_message_and_code(
    kind: type[errors.SupermergeError], code: int, debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, guarded(debug):
        raise kind("file.x: found 3 [dim]things[/dim], expected 4", hint="Add one.")
    captured = capsys.readouterr()
    assert left.value.exit_code == code
    assert captured.out == ""
    if debug:
        assert "Traceback" in captured.err
    else:
        assert captured.err == "error: file.x: found 3 [dim]things[/dim], expected 4\nAdd one.\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 5, "error: /x/y: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "error: No space left on device"),
        (MemoryError(), 5, "error: Out of memory."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 5, "error: Out of memory."),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of …"),
            5,
            "error: CUDA out of memory.\nLower `batch_size` or `max_length` of the tasks, or set CUDA_VISIBLE_DEVICES=",
        ),
        (RuntimeError("std::bad_alloc"), 5, "error: Out of memory."),
        (RuntimeError("can't start new thread"), 5, "error: Out of memory."),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
    ],
)
def test_errors_of_the_machine(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, guarded(False):
        raise error
    assert left.value.exit_code == code
    assert capsys.readouterr().err.startswith(message)


SWALLOWED = """
import os, signal, time
from supermerge.cli.guard import guarded

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

with guarded(False):
    Deaf()
    time.sleep(30)
print("it went on")
"""

TOO_LATE = """
import os, signal
from supermerge.cli.guard import guarded

with guarded(False):
    print("done")
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_an_interruption_in_code_that_cannot_raise_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=25)
    assert done.stdout == ""
    assert "error: Interrupted." in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_is_done_cannot_be_interrupted() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_LATE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_says_so(debug: bool) -> None:
    flag = "True" if debug else "False"
    code = (
        "import sys\nfrom supermerge.cli.guard import guarded, report_bug\nsys.excepthook = report_bug\n"
        f"with guarded({flag}):\n    [][3]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert ("Traceback" in done.stderr) == debug
    assert ("This is a bug in supermerge: IndexError: list index out of range" in done.stderr) != debug


def test_the_reader_of_a_pipe_may_leave() -> None:
    command = f"{Path(sys.executable).parent / 'supermerge'} methods ties --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


def test_the_reader_of_a_table_may_leave() -> None:
    """A table is written by rich, which has ideas of its own about broken pipes."""
    command = f"{Path(sys.executable).parent / 'supermerge'} methods | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Method")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [("methods ties", ">&-", 0), ("methods ties --json", ">&-", 0), ("run nowhere.yaml", "2>&-", 3)],
)
def test_streams_that_are_closed(arguments: str, closed: str, code: int) -> None:
    command = f"{Path(sys.executable).parent / 'supermerge'} {arguments} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_recipe_error_on_the_command_line(supermerge_command: Callable[..., object], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("base: b\nexperts: {a: x}\nmetod: ties\n")
    for command in (["plan", recipe], ["run", recipe]):
        done = supermerge_command(*command)
        assert (done.code, done.out) == (3, "")
        assert done.err == f"error: {recipe}, line 3: metod: unknown key 'metod'; did you mean 'method'?\n"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
