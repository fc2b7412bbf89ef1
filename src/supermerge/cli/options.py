"""Arguments and flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supermerge.errors import UsageError

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document to stdout.")]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)]
OutputDirectory = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where the result goes.", show_default=False)
]


def the_one(given: list[str], flag: str) -> str:
    """The value of a flag that is given once: of two, one would be lost. Raises UsageError."""
    if len(given) > 1:
        raise UsageError(
            f"{flag} is given {len(given)} times: {', '.join(given)}", hint="Give one, and repeat the command."
        )
    return given[0]
