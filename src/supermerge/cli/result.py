"""What a finished run prints: the scores, the verdict, the cost, and where everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from supermerge.cli.console import console, short_path
from supermerge.cli.scores import print_results_table
from supermerge.report.adapter import described
from supermerge.report.numbers import seconds, size
from supermerge.report.results import Results
from supermerge.report.summary import verdict

if TYPE_CHECKING:
    from supermerge.run import Result


def print_result(result: Result) -> None:
    """Print `result` for a person."""
    out, results = console(), result.results
    if results.models:
        out.print()
        print_results_table(results)
        out.print()
        judged = verdict(results)
        sign, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "yellow")}[judged.good]
        out.print(Text.assemble((f"{sign} {judged.headline}. ", style), " ".join(judged.sentences)))
    if results.recommendation is not None:
        chosen = next(model.label for model in results.models if model.id == results.recommendation.model)
        out.print(Text.assemble(("Recommended: ", "bold"), (chosen, "bold cyan"), f". {results.recommendation.reason}"))
    for message in results.warnings:
        out.print(Text.assemble(("✗ ", "bold red"), (message, "bold red")))
    out.print()
    directory = short_path(result.directory)
    out.print(Text.assemble(("Model   ", "dim"), (directory, "bold"), (f"   {_cost(results)}", "dim")))
    if results.adapter is not None:
        out.print(Text.assemble(("Adapter ", "dim"), described(results.adapter)))
    report = result.directory / "report.html"
    if report.exists():
        out.print(Text.assemble(("Report  ", "dim"), short_path(report)))


def _cost(results: Results) -> str:
    cost = results.cost
    total = sum(phase.seconds for phase in cost.phases)
    peaks = [phase.peak_rss_bytes for phase in cost.phases if phase.peak_rss_bytes is not None]
    parts = [size(cost.output_bytes)] if cost.output_bytes is not None else []
    parts += [f"in {seconds(total)}"] if cost.phases else []
    parts += [f"with at most {size(max(peaks))} of memory"] if peaks else []
    return " ".join(parts)
