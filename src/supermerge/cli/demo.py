"""`supermerge demo`."""

from __future__ import annotations

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, OutputDirectory


def demo(output: OutputDirectory = None, debug: Debug = False) -> None:
    """Train real experts on real data, merge them, compare with other methods, and write the report."""
    with guarded(debug):
        from supermerge.cli.progress import showing_progress
        from supermerge.cli.result import print_result

        with showing_progress("text"):
            from supermerge.demo import demo as run_demo

            result = run_demo(output)
        print_result(result)
