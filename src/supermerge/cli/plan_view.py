"""How a plan looks on a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from supermerge.cli.console import console, plain_table, short_path
from supermerge.plan import Plan
from supermerge.report.numbers import seconds, size


def print_plan(plan: Plan) -> None:
    """Print `plan` for a person."""
    out = console()
    out.print(Text.assemble((plan.title, "bold"), (f"  {plan.paper}", "dim")))
    out.print()
    models = plain_table("", "Checkpoint", "Tensors", "Parameters", "Size", numbers=("Tensors", "Parameters", "Size"))
    for model in plan.models:
        style = "bold" if model.name == "base" else "cyan"
        cells = (f"{model.tensors:,}", f"{model.parameters:,}", size(model.bytes))
        models.add_row(Text(model.name, style), short_path(model.ref), *cells)
    out.print(models)
    out.print()
    out.print(Text.assemble(*_what(plan)))
    out.print()
    phases = plain_table("Phase", "", "Reads", "Holds", "Writes", numbers=("Reads", "Holds", "Writes"))
    for phase in plan.phases:
        amounts = [size(amount) if amount else "" for amount in (phase.reads, phase.holds, phase.writes)]
        phases.add_row(Text(phase.name, "cyan"), Text(phase.what, "dim"), *amounts)
    out.print(phases)
    out.print()
    if plan.memory_budget is not None and plan.residencies:
        out.print(_residencies(plan))
        out.print()
    for label, value, remark in _totals(plan):
        out.print(Text.assemble((f"{label:<8}", "dim"), (value, "bold"), (f"  {remark}", "dim")))
    for note in plan.notes:
        out.print(Text.assemble(("note    ", "yellow"), note))


def _what(plan: Plan) -> list[str | tuple[str, str]]:
    parts: list[str | tuple[str, str]] = [f"{plan.merged:,} tensors are merged"]
    if plan.copied:
        parts.append(f", {plan.copied:,} come from the base")
    if plan.heads:
        heads = ", ".join(f"{name} ({count})" for name, count in plan.heads.items())
        parts.append(f", heads stay with their tasks: {heads}")
    if plan.coefficients:
        parts.append(("\n", ""))
        parts.append(f"{plan.coefficients:,} coefficients are learned")
    if plan.learned_as:
        parts.append(("; " if plan.coefficients else "\n", ""))
        parts.append(_how(plan.learned_as, _place(plan.residency)))
    return parts


def _residencies(plan: Plan) -> Table:
    """What was considered within the budget, and which of it was chosen: the first that is exact and fits, if any."""
    table = plain_table("Residency", "", "Holds", "Reads a step", "", numbers=("Holds", "Reads a step"))
    for one in plan.residencies:
        words = "exact" if one.exact else "not exact, by choice alone"
        fits = ("fits" if one.fits else "too large", "dim")
        if one.fits and one.name == plan.residency:
            fits = ("chosen", "green")
        reads = size(one.step_reads) if one.step_reads else ""
        table.add_row(Text(one.name, "cyan"), Text(words, "dim"), size(one.holds), reads, Text(*fits))
    return table


def _place(residency: str | None) -> str:
    places = {
        "disk": "on disk",
        "memory": "in memory",
        "offload": "on disk, as does the model",
        "sharded": "on disk, and the model in all processes",
    }
    return places.get(str(residency), f"in memory as {residency}")


def _how(learned_as: Mapping[str, int], place: str) -> str:
    """What is learned from: task vectors, factors of adapters, or both."""
    factors, vectors = learned_as["factors"], learned_as["task_vectors"]
    if not factors:
        return f"task vectors stay {place}"
    dense = f", {vectors:,} from dense task vectors {place}" if vectors else ""
    return f"{factors:,} tensors from the adapters' factors, beside a frozen base{dense}"


def _totals(plan: Plan) -> list[tuple[str, str, str]]:
    remarks = {
        "none": "",
        "counted": ", for full batches of the greatest length",
        "unknown": ", and activations, which are unknown before the first step",
    }
    free = f"of {size(plan.memory_available)} free"
    if plan.memory_budget is not None:
        free = f"of {size(plan.memory_budget)} allowed"
    totals = [("memory", f"about {size(plan.peak_memory)}", free + remarks[plan.activations])]
    totals.append(("disk", f"up to {size(plan.disk_needed)}", f"of {size(plan.disk_free)} free"))
    if plan.seconds is not None:
        totals.append(("time", f"about {seconds(plan.seconds)}", "at the pace of two cores and a local disk"))
    totals.append(("output", short_path(plan.output or "none"), "" if plan.output else "give output.path or -o"))
    return totals
