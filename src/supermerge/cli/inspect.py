"""`supermerge inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json


def inspect(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Directories, files or hub ids.", show_default=False)
    ],
    base: Annotated[
        str | None, typer.Option("--base", metavar="B", help="Compare every checkpoint with this one.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what checkpoints hold and, with a base, how far they are from it."""
    with guarded(debug):
        from supermerge.cli.console import print_json
        from supermerge.cli.inspection_view import print_inspection
        from supermerge.inspection import inspect as inspect_checkpoints

        inspection = inspect_checkpoints(checkpoints, base=base)
        if as_json:
            print_json(inspection.to_json())
        else:
            print_inspection(inspection)
