"""`supermerge remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, the_one


def remove(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that `supermerge run` wrote.", show_default=False)
    ],
    expert: Annotated[list[str], typer.Option("--expert", metavar="NAME", help="The expert to leave out.")],
    debug: Debug = False,
) -> None:
    """Remove an expert and its tasks from a merge: DIR is replaced by the merge without it, once that is complete.

    The others are merged anew; a method that learns starts from the coefficients so far.
    """
    with guarded(debug):
        from supermerge.cli.progress import showing_progress
        from supermerge.cli.result import print_result

        with showing_progress("text"):
            from supermerge.run.growing import remove as remove_expert

            result = remove_expert(directory, the_one(expert, "--expert"))
        print_result(result)
