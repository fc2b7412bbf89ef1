"""The `supermerge` command."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated

import typer

from supermerge import __version__
from supermerge.cli.add import add
from supermerge.cli.compare import compare
from supermerge.cli.demo import demo
from supermerge.cli.doctor import doctor
from supermerge.cli.evaluate import evaluate
from supermerge.cli.guard import guarded, quiet_when_interrupted, report_bug
from supermerge.cli.inspect import inspect
from supermerge.cli.methods import methods
from supermerge.cli.plan import plan
from supermerge.cli.remove import remove
from supermerge.cli.run import run
from supermerge.cli.verify import verify
from supermerge.distributed import launched, leads, processes
from supermerge.errors import ToldElsewhere, UsageError

app = typer.Typer(
    name="supermerge",
    help="Merge fine-tuned experts into one model, with coefficients learned from a few labelled examples.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (run, plan, evaluate, compare, inspect, methods, add, remove, verify, doctor, demo):
    app.command()(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"supermerge {__version__}")
        raise typer.Exit


def _refuse_several(command: str) -> None:
    """What several processes would all do, each for itself and into the same place."""
    message = f"`supermerge {command}` is for one process, and torchrun started {processes()}."
    with guarded(debug=False):
        if not leads():
            raise ToldElsewhere(message, UsageError.exit_code)
        raise UsageError(
            message, hint="Only `supermerge run` is shared by several processes; start this one without torchrun."
        )


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Merge fine-tuned experts into one model, with coefficients learned from a few labelled examples."""
    if launched() and context.invoked_subcommand not in (None, run.__name__):
        _refuse_several(str(context.invoked_subcommand))


def _open_streams() -> None:
    """Streams that whoever started us has closed lead nowhere; a file that is opened later would get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def main() -> None:
    """Parse the command line, run the command, and exit with its code."""
    quiet_when_interrupted()
    _open_streams()
    sys.excepthook = report_bug
    # Imports make a million objects that stay: to search them for garbage every 700 takes a tenth of a short run.
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)  # a last search when the process ends takes half a second more
    typer.main.get_command(app)(prog_name="supermerge")


def program() -> None:
    """`main` as a process of its own, which ends as soon as all is done and said.

    What Python and torch do after that is free memory, piece by piece: a tenth of a second.
    """
    status: int | None = None

    def leave() -> None:
        if status is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # Python's own ending knows what to say
        os._exit(status)

    atexit.register(leave)  # the first that is registered is the last that is called
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else None
        raise
