"""`supermerge compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json, OutputDirectory, RecipeFile
from supermerge.errors import UsageError


def compare(
    recipe: RecipeFile,
    methods: Annotated[
        list[str], typer.Option("--methods", metavar="A,B,C", help="Methods, with commas between.", show_default=False)
    ],
    output: OutputDirectory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Merge with several methods, score each on the recipe's tasks, and recommend one."""
    with guarded(debug):
        from supermerge.cli.console import print_json
        from supermerge.cli.progress import showing_progress
        from supermerge.cli.result import print_result

        names = [name.strip() for name in ",".join(methods).split(",") if name.strip()]
        if not names:
            raise UsageError("--methods names no method.", hint="For example --methods linear,ties,supermerge.")
        with showing_progress("text"):
            from supermerge.run import compare as compare_methods

            result = compare_methods(recipe, names, output=output)
        if as_json:
            print_json(result.results.model_dump(mode="json"))
        else:
            print_result(result)
