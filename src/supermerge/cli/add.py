"""`supermerge add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, the_one


def add(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that `supermerge run` wrote.", show_default=False)
    ],
    expert: Annotated[
        list[str], typer.Option("--expert", metavar="NAME=PATH", help="The new expert: a name, and a path or hub id.")
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="The merge's recipe with the new expert's task and examples; by default the one in DIR.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Add an expert to a merge: DIR is replaced by the merge with it, once that is complete.

    Where the old experts are still there, unchanged, all are merged anew, and a method that learns starts from the
    coefficients so far. Where they are not, the merge so far counts as one expert.
    """
    with guarded(debug):
        from supermerge.cli.progress import showing_progress
        from supermerge.cli.result import print_result
        from supermerge.errors import UsageError
        from supermerge.recipe import Recipe

        given = the_one(expert, "--expert")
        name, equals, model = given.partition("=")
        if not (name and equals and model):
            raise UsageError(f"--expert {given!r}: expected NAME=PATH", hint="For example --expert news=experts/news.")
        wanted = None if recipe is None else Recipe.load(recipe)
        with showing_progress("text"):
            from supermerge.run.growing import add as add_expert

            result = add_expert(directory, name, model, wanted)
        print_result(result)
