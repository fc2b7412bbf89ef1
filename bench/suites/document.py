"""The block of docs/benchmarks.md that is made from a suite's cells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import erfc, sqrt
from pathlib import Path

from suites.rows import BY_NAME
from suites.table import SELECTED, Line, difference, normalised
from suites.tasks import SUITES

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_KINDS = {"base": "base under the experts' heads", "expert": "experts, each on its own task"}
_Z95 = 1.96


def write(suite: str, found: Sequence[Line], budget: int) -> None:
    """Put the block between the suite's markers; at the end of the document where it has none yet."""
    first, last = f"<!-- {suite}: made by bench/suite.py {suite} table -->", f"<!-- end of {suite} -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    if first not in text:
        text = f"{text.rstrip()}\n\n{first}\n{last}\n"
    before, rest = text.split(first, 1)
    after = rest.split(last, 1)[1]
    DOCUMENT.write_text(f"{before}{first}\n\n{block(suite, found, budget)}\n{last}{after}", encoding="utf-8")


def block(suite: str, found: Sequence[Line], budget: int) -> str:
    """Both tables, what was tested, and the chart."""
    experts = next(line for line in found if line.kind == "expert")
    picture = f"![Accuracy against seconds of all methods](suite-{suite}.svg)"
    left_out = SUITES[suite].left_out
    parts = [
        *_summary(found, experts, budget, left_out),
        "",
        _verdict(found, experts),
        "",
        *_tasks(found),
        "",
        picture,
        "",
    ]
    return "\n".join(parts)


def _summary(found: Sequence[Line], experts: Line, budget: int, left_out: Sequence[str]) -> list[str]:
    columns = ("labels", "unlabelled", "mean accuracy", "of experts", "worst task, of its expert", "of the draws")
    columns = (*columns, "left-out tasks", "seconds", "MB")
    rows = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for line in found:
        mean, error = difference(line)
        shares = normalised(line, experts)
        worst = min(shares, key=lambda task: shares[task])
        labels = budget if line.selected or BY_NAME[line.method].labels else 0
        draws = ", ".join(f"{value:.3f}" for value in line.of_draws) if len(line.cells) > 1 else ""
        cells = [
            _name(line),
            str(labels or ""),
            str(line.unlabelled or ""),
            f"{mean:.3f} ± {_Z95 * error:.3f}",
            f"{100 * statistics.mean(shares.values()):.1f} %",
            f"{100 * shares[worst]:.0f} % ({worst})",
            draws,
            _without(line, experts, left_out),
            f"{line.seconds:.0f}",
            f"{line.peak_rss_mb:.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _without(line: Line, experts: Line, tasks: Sequence[str]) -> str:
    """Mean accuracy on the tasks that were left out, and as a share of their experts'."""
    found = line.on_left_out(tasks)
    if found is None:
        return ""
    share = statistics.mean(found[task] / experts.per_task[task] for task in tasks)
    return f"{statistics.mean(found.values()):.3f} ({100 * share:.1f} %)"


def _name(line: Line) -> str:
    if line.selected:
        return f"**{SELECTED}, chosen on validation** ({', '.join(dict.fromkeys(line.chosen))})"
    return _KINDS.get(line.kind, line.method)


def _tasks(found: Sequence[Line]) -> list[str]:
    tasks = list(found[0].per_task)
    rows = [f"| | {' | '.join(tasks)} |", f"|---|{'---|' * len(tasks)}"]
    for line in found:
        name = f"**{SELECTED}**" if line.selected else _KINDS.get(line.kind, line.method)
        rows.append(f"| {name} | {' | '.join(f'{line.per_task[task]:.3f}' for task in tasks)} |")
    return rows


def _verdict(found: Sequence[Line], experts: Line) -> str:
    """The chosen supermerge against the best of the other methods, paired by test example and draw."""
    ours = next((line for line in found if line.selected), None)
    others = [line for line in found if line.kind == "static" and not line.method.startswith(SELECTED)]
    if ours is None or not others:
        return "No supermerge variant or no other method has results yet."
    runner_up = others[0]
    gap, error = difference(ours, runner_up)
    p = erfc(abs(gap) / error / sqrt(2)) if error else 1.0
    return (
        f"The best of the other methods is {runner_up.method}. SuperMerge, chosen on validation data, is "
        f"{100 * gap:+.1f} ± {100 * _Z95 * error:.1f} points from it (paired by test example and draw, two-sided "
        f"p = {p:.2g}), and reaches {100 * statistics.mean(normalised(ours, experts).values()):.1f} % of the experts."
    )
