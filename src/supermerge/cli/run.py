"""`supermerge run`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.loading import loading
from supermerge.cli.options import Debug, OutputDirectory, RecipeFile
from supermerge.distributed import leads, united


def run(
    recipe: RecipeFile,
    output: OutputDirectory = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, such as method.steps=50."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an output directory that exists.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Start anew instead of continuing an interrupted run.")
    ] = False,
    allow_unrelated: Annotated[
        bool, typer.Option("--allow-unrelated", help="Merge experts that do not look fine-tuned from the base.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option("--log-format", help="Progress as text, or one JSON object per line.")
    ] = "text",
    debug: Debug = False,
) -> None:
    """Merge: a recipe in, a finished model directory out, with scores and a report."""
    with guarded(debug), united():
        with loading():
            from supermerge.cli.progress import showing_progress
            from supermerge.cli.result import print_result
            from supermerge.recipe import Recipe

        wanted = Recipe.load(recipe, overrides or ())
        with showing_progress(log_format, quiet=quiet):
            with loading():
                from supermerge.run import run as run_recipe

            result = run_recipe(
                wanted, output=output, force=force, resume=not no_resume, allow_unrelated=allow_unrelated
            )
        if leads():
            print_result(result)
