"""How an inspection looks on a terminal."""

from __future__ import annotations

from rich.text import Text

from supermerge.cli.console import console, plain_table
from supermerge.inspection import Comparison, Inspection
from supermerge.report.numbers import size


def print_inspection(inspection: Inspection) -> None:
    """Print `inspection` for a person."""
    out = console()
    table = plain_table(
        "Checkpoint", "Class", "Tensors", "Parameters", "Size", "Dtype", numbers=("Tensors", "Parameters", "Size")
    )
    for model in inspection.models:
        cells = (f"{model.tensors:,}", f"{model.parameters:,}", size(model.bytes))
        table.add_row(Text(model.name, "cyan"), model.architecture or "–", *cells, ", ".join(model.dtypes))
    out.print(table)
    if inspection.comparison is not None:
        names = [model.name for model in inspection.models[1:]]
        out.print()
        _print_comparison(names, inspection.comparison)


def _print_comparison(names: list[str], comparison: Comparison) -> None:
    out = console()
    out.print(f"{comparison.merged:,} tensors would be merged, {comparison.copied:,} come from the base.")
    for name, heads in comparison.heads.items():
        if heads:
            more = " …" if len(heads) > 4 else ""
            out.print(Text.assemble((name, "cyan"), f" has a head: {', '.join(heads[:4])}{more}"))
    for note in comparison.notes:
        out.print(Text.assemble(("note ", "yellow"), note))
    out.print()
    cosines = [f"cos {name}" for name in names] if len(names) > 1 else []
    numbers = ("Length", "Relative", *cosines)
    table = plain_table("Task vector", *numbers, numbers=numbers)
    for i, name in enumerate(names):
        row = [f"{cosine:+.2f}" for cosine in comparison.cosines[i]] if cosines else []
        table.add_row(Text(name, "cyan"), f"{comparison.norms[i]:.3g}", f"{comparison.relative_norms[i]:.2%}", *row)
    out.print(table)
    out.print(Text("Length ‖τ‖, relative to the base ‖τ‖/‖θ‖, and the cosines between task vectors", "dim"))
