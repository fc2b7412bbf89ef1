"""`supermerge.compare`: several methods on the same checkpoints, rows and test examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supermerge.assemble import at_most_threads
from supermerge.checkpoint import OutputDirectory
from supermerge.errors import RecipeError, UsageError
from supermerge.events import phase
from supermerge.methods import get
from supermerge.plan.comparison import room_to_compare
from supermerge.recipe import Recipe
from supermerge.resources import existing_directory
from supermerge.run.contest import contend, require_rows
from supermerge.run.journal import journalled
from supermerge.run.prepared import prepared
from supermerge.run.recommending import Contender, ranked, recommended
from supermerge.run.reporting import results_of, write_results
from supermerge.run.result import Result


def compare(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    methods: Sequence[str],
    output: str | os.PathLike[str] | None = None,
) -> Result:
    """Merge with every method of `methods`, score each on the recipe's test rows, and write one report.

    No weights are written. `output` is by default `comparison` in the working directory. Every method has the same
    labelled validation rows, to learn from or to tune its main parameter on; the part of them that is held back from
    both recommends one, never the test rows. A recipe's `memory` holds for all of them. Errors: as `run`.
    """
    wanted = Recipe.of(recipe)
    if isinstance(methods, str) or not methods:
        raise UsageError(
            f"methods: expected the names of methods, found {methods!r}.", hint='For example ["linear", "ties"].'
        )
    for name in methods:
        get(name)
    path = Path(output) if output is not None else Path("comparison")
    room = room_to_compare(wanted, list(dict.fromkeys(methods)))
    with (
        journalled() as journal,
        OutputDirectory(path) as out,
        at_most_threads(room.threads),
        prepared(wanted, room.residency, scratch=existing_directory(path)) as ready,
    ):
        scoring = ready.scoring()
        if not scoring.tested:
            raise RecipeError("No task has test examples to compare on.", hint="Add `test` to a task of the recipe.")
        names = dict.fromkeys(methods)
        for name in names:
            require_rows(ready, name)
        with phase("scoring"):
            references = scoring.references()
            rows = [contend(ready, scoring, name, judged=True) for name in names]
        found = results_of(ready, journal, path, ranked([*references, *rows]), scoring.tasks())
        advice = recommended([Contender(row, scoring.of[row.id]) for row in rows])
        found = found.model_copy(update={"recommendation": advice})
        found = write_results(out.staging, ready, journal, path, found)
        journal.write(out.staging / "run.jsonl")
        out.commit()
    return Result(path, found)
