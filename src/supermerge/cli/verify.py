"""`supermerge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug


def verify(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that `supermerge run` wrote.", show_default=False)
    ],
    again: Annotated[
        bool, typer.Option("--check", help="Also merge again from the inputs, and compare every hash.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Re-read a merged model and its inputs, and compare every hash with its lock file."""
    with guarded(debug):
        from rich.markup import escape

        from supermerge.cli.console import console
        from supermerge.cli.progress import showing_progress
        from supermerge.report.numbers import size

        with showing_progress("text"):
            from supermerge.verify import verify as verify_directory

            verified = verify_directory(directory)
            same = None
            if again:
                from supermerge.run.checking import check

                same = check(directory)
        out, tick = console(), "[green]✓[/]"
        out.print(
            f"{tick} {escape(str(directory))}: {verified.tensors:,} tensors and {verified.files:,} files "
            f"({size(verified.bytes_read)}) are as recipe.lock.json says"
        )
        if verified.inputs:
            out.print(f"{tick} the inputs are those that were merged: {escape(', '.join(verified.inputs))}")
        if verified.unreachable:
            out.print(
                f"[yellow]·[/] not checked, because not there any more: {escape(', '.join(verified.unreachable))}"
            )
        if verified.loads_as is not None:
            out.print(f"{tick} loads as {escape(verified.loads_as)}, with nothing left to chance")
        if same is not None:
            out.print(f"{tick} merged again, all {same:,} tensors have the same bytes")
