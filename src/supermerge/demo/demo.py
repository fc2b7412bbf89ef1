"""`supermerge demo`: SuperMerge against the usual data-free merges, on real models and real tasks."""

from __future__ import annotations

import os
from pathlib import Path

from supermerge.cache import cache_directory
from supermerge.demo.preparation import prepare
from supermerge.run.merging import run_beside
from supermerge.run.result import Result

RIVALS = ("linear", "task_arithmetic", "ties")


def demo(output: str | os.PathLike[str] | None = None) -> Result:
    """Train the experts where the cache lacks them, merge them, score the rivals too, and write the report.

    `output` is by default `supermerge-demo` in the working directory; an older demo there is replaced.
    """
    recipe = prepare(cache_directory())
    return run_beside(RIVALS, recipe, output=Path(output or "supermerge-demo"), force=True)
