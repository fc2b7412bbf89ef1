"""`supermerge evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A directory, a file or a hub id.", show_default=False)],
    recipe: Annotated[
        Path, typer.Option("--recipe", metavar="RECIPE", help="The recipe whose tasks are scored.", show_default=False)
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score a model on the test examples of a recipe's tasks."""
    with guarded(debug):
        from supermerge.cli.console import print_json
        from supermerge.cli.progress import showing_progress
        from supermerge.cli.scores import print_scores, scores_to_json

        with showing_progress("text"):
            from supermerge.run import evaluate as evaluate_model

            scores = evaluate_model(model, recipe)
        if as_json:
            print_json({"model": model, "recipe": str(recipe), "scores": scores_to_json(scores)})
        else:
            print_scores(model, scores)
