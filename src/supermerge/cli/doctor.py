"""`supermerge doctor`."""

from __future__ import annotations

import typer
from rich.text import Text

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json, RecipeFile

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red"), "skipped": ("·", "dim")}


def doctor(recipe: RecipeFile, as_json: Json = False, debug: Debug = False) -> None:
    """Make every check of a run, and read every value once, without merging."""
    with guarded(debug):
        from supermerge.cli.console import console, plain_table, print_json
        from supermerge.cli.progress import showing_progress

        with showing_progress("text", quiet=True):
            from supermerge.run.doctor import doctor as examine

            diagnosis = examine(recipe)
        if as_json:
            print_json(diagnosis.to_json())
        else:
            table = plain_table("", "Check", "Found")
            for finding in diagnosis.findings:
                found = Text(finding.found).append(f"\n{finding.hint}" if finding.hint else "", "dim")
                table.add_row(Text(*_SIGNS[finding.status]), Text(finding.check, "cyan"), found)
            console().print(table)
        if diagnosis.code:
            raise typer.Exit(diagnosis.code)
