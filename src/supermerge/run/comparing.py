"""`supermerge.compare`: several methods on the same checkpoints, rows and test examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supermerge.checkpoint import OutputDirectory
from supermerge.errors import RecipeError
from supermerge.events import phase
from supermerge.methods import get
from supermerge.recipe import Recipe
from supermerge.run.contest import contend
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
    both recommends one, never the test rows. Errors: as `run`.
    """
    wanted = Recipe.of(recipe)
    for name in methods:
        get(name)
    path = Path(output) if output is not None else Path("comparison")
    with journalled() as journal, OutputDirectory(path) as out, prepared(wanted) as ready:
        scoring = ready.scoring()
        if not scoring.tested:
            raise RecipeError("No task has test examples to compare on.", hint="Add `test` to a task of the recipe.")
        with phase("scoring"):
            references = scoring.references()
            rows = [contend(ready, scoring, name, judged=True) for name in dict.fromkeys(methods)]
        found = results_of(ready, journal, path, ranked([*references, *rows]), scoring.tasks())
        advice = recommended([Contender(row, scoring.of[row.id]) for row in rows])
        found = found.model_copy(update={"recommendation": advice})
        found = write_results(out.staging, ready, journal, path, found)
        journal.write(out.staging / "run.jsonl")
        out.commit()
    return Result(path, found)
