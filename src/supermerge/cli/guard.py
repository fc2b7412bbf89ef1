"""Errors of a command: one message on stderr and the exit code of its kind, a traceback only with `--debug`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import typer
from rich.console import Console
from rich.text import Text

from supermerge.errors import InterruptedRun, ResourceError, SupermergeError, ToldElsewhere
from supermerge.resources import DEVICE_FULL, OUT_OF_MEMORY

_NO_MEMORY = ResourceError("Out of memory.", hint="`supermerge plan` says how much a recipe needs.")
_MOMENT = 0.02


@contextmanager
def guarded(debug: bool) -> Iterator[None]:
    """Run the body of a command; what the user can act on ends it with one message and its exit code."""
    if debug:
        sys.excepthook = sys.__excepthook__
    try:
        # A job scheduler's polite request to stop is an interruption like ctrl-C: the state is saved.
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, signal.default_int_handler)
        sys.unraisablehook = _interrupt_again
        yield
        for sign in (signal.SIGINT, signal.SIGTERM):  # all is done: there is nothing left to interrupt
            signal.signal(sign, signal.SIG_IGN)
    except SupermergeError as error:
        if debug:
            _leave_with_traceback(error)
        _leave(error)
    except KeyboardInterrupt as interrupt:
        if debug:
            sys.__excepthook__(type(interrupt), interrupt, interrupt.__traceback__)
        _leave(InterruptedRun("Interrupted.", hint="The same command continues where a run can be continued."))
    except BrokenPipeError:
        # The reader of our output went away (`supermerge … | head`): nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except RuntimeError as error:
        found = _memory_error(str(error))
        if found is None:
            raise
        if debug:
            _leave_with_traceback(error)
        _leave(found)
    except (OSError, MemoryError) as error:
        if debug:
            _leave_with_traceback(error)
        _leave(_resource_error(error))


def quiet_when_interrupted() -> None:
    """Before a command begins, an interruption has nothing to say and nothing to tidy up."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: os._exit(InterruptedRun.exit_code))


def _interrupt_again(swallowed: sys.UnraisableHookArgs) -> None:
    """An interruption that came inside code that cannot raise, such as a destructor, is asked for once more."""
    if not isinstance(swallowed.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(swallowed)
        return
    again = threading.Timer(_MOMENT, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()


def _leave_with_traceback(error: BaseException) -> None:
    """Show the traceback of `error` and leave with the exit code of its kind."""
    sys.__excepthook__(type(error), error, error.__traceback__)
    raise typer.Exit(error.exit_code if isinstance(error, SupermergeError) else ResourceError.exit_code)


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What `sys.excepthook` does without `--debug`: an error that no one foresaw is ours, and says where it was."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    _show(
        f"This is a bug in supermerge: {kind.__name__}: {error}{place}",
        "Run the same command with --debug and report what it prints.",
    )


def _memory_error(said: str) -> ResourceError | None:
    """What a RuntimeError that says so is about, where it is about memory."""
    if DEVICE_FULL in said:
        return ResourceError(
            f"{said.split('. ')[0]}.",
            hint="Lower `batch_size` or `max_length` of the tasks, or set CUDA_VISIBLE_DEVICES= to compute on the CPU.",
        )
    return _NO_MEMORY if any(words in said for words in OUT_OF_MEMORY) else None


def _resource_error(error: OSError | MemoryError) -> SupermergeError:
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    place = f"{error.filename}: " if error.filename else ""
    return ResourceError(f"{place}{error.strerror or error}", hint="Check the path, permissions and free space.")


def _leave(error: SupermergeError) -> None:
    if not isinstance(error, ToldElsewhere):
        _show(error.message, error.hint)
    for sign in (signal.SIGINT, signal.SIGTERM):  # where one process of a run ends, the others are told to
        signal.signal(sign, signal.SIG_IGN)
    raise typer.Exit(error.exit_code)


def _show(message: str, hint: str | None) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), message))
    if hint:
        console.print(Text(hint, style="dim"))
