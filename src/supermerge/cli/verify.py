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
    debug: Debug = False,
) -> None:
    """Re-read a merged model and compare every hash with its lock file."""
    with guarded(debug):
        from supermerge.cli.console import console
        from supermerge.cli.progress import showing_progress
        from supermerge.report.numbers import size

        with showing_progress("text"):
            from supermerge.verify import verify as verify_directory

            verified = verify_directory(directory)
        console().print(
            f"[green]✓[/] {directory}: {verified.tensors:,} tensors and {verified.files:,} files "
            f"({size(verified.bytes_read)}) are as recipe.lock.json says"
        )
