"""`supermerge plan`."""

from __future__ import annotations

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json, RecipeFile


def plan(recipe: RecipeFile, as_json: Json = False, debug: Debug = False) -> None:
    """Show what a run would read, hold and write, without doing it."""
    with guarded(debug):
        from supermerge.cli.console import print_json
        from supermerge.cli.plan_view import print_plan
        from supermerge.plan import plan as plan_recipe

        # An output that exists is worth a note here, and refused by a run.
        planned = plan_recipe(recipe, force=True)
        if as_json:
            print_json(planned.to_json())
        else:
            print_plan(planned)
        planned.require_feasible()
