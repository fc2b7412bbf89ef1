"""`table`: from cells to rows, to JSON, and to a block of docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.cells import DRAWS, results
from suites.rows import BY_NAME, ROWS

SELECTED = "supermerge"
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One model of the table: `cells` has one result per draw, or a single one where draws play no part."""

    method: str
    kind: str
    cells: Sequence[Found]
    seconds: float
    """Of one core, on one thread: the machines are shared, so that wall-clock times say little."""
    selected: bool = False
    chosen: tuple[str, ...] = ()
    without: Sequence[Found] = ()
    """Results of the same method without some experts, on the tasks of those."""

    @property
    def per_task(self) -> dict[str, float]:
        """Accuracy by task, the mean over draws."""
        return {task: statistics.mean(cell["accuracy"][task] for cell in self.cells) for task in self.cells[0]["right"]}

    def on_left_out(self, tasks: Sequence[str]) -> dict[str, float] | None:
        """Accuracy by task on tasks that played no part in making it; None where that was not measured."""
        if self.kind in ("base", "expert"):
            return {task: self.per_task[task] for task in tasks}
        if not self.without:
            return None
        return {task: statistics.mean(cell["accuracy"][task] for cell in self.without) for task in tasks}

    @property
    def of_draws(self) -> list[float]:
        """Mean accuracy over tasks, by draw."""
        return [statistics.mean(cell["accuracy"].values()) for cell in self.cells]

    @property
    def mean(self) -> float:
        """Mean accuracy over tasks and draws."""
        return statistics.mean(self.of_draws)

    @property
    def unlabelled(self) -> int:
        """Unlabelled inputs per task, at most."""
        return max((max(cell["unlabelled"].values()) for cell in self.cells if cell["unlabelled"]), default=0)

    @property
    def peak_rss_mb(self) -> float:
        """The most memory that making it took."""
        return max(cell["peak_rss_mb"] for cell in self.cells)


def lines(suite: str, budget: int, draws: Sequence[int] = DRAWS) -> list[Line]:
    """All models with results, best first within their kind; supermerge as chosen on validation data among them."""
    by_row: dict[str, list[Found]] = defaultdict(list)
    without: dict[str, list[Found]] = defaultdict(list)
    for cell in results(suite):
        if cell["draw"] is None or (cell["budget"] == budget and cell["draw"] in draws):
            # Cells that are older than the column have no list.
            (without if cell.get("left_out") else by_row)[cell["row"]].append(cell)
    found = [
        Line(
            row.name,
            row.kind,
            by_row[row.name],
            statistics.mean(cell["cpu_seconds"] for cell in by_row[row.name]),
            without=without[row.name],
        )
        for row in ROWS
        if by_row[row.name]
    ]
    candidates = [line for line in found if BY_NAME[line.method].candidate]
    if candidates:
        found.append(_selected(candidates))
    order = ("expert", "multitask", "static", "control", "base")
    return sorted(found, key=lambda line: (order.index(line.kind), -line.mean))


def _selected(candidates: Sequence[Line]) -> Line:
    """For every draw, the candidate that is best on the draw's labels: no candidate has learned from them."""
    chosen = []
    for draw in map(str, DRAWS):
        # (accuracy, loss) on the draw's validation examples.
        judged = {line.method: line.cells[0]["validation"][draw] for line in candidates}
        chosen.append(
            max(candidates, key=lambda line, judged=judged: (judged[line.method][0], -judged[line.method][1]))
        )
    seconds = sum(line.seconds for line in candidates)
    names = tuple(line.method for line in chosen)
    return Line(SELECTED, "static", [line.cells[0] for line in chosen], seconds, selected=True, chosen=names)


def normalised(line: Line, experts: Line) -> dict[str, float]:
    """Accuracy as a share of the expert's, by task."""
    return {task: value / experts.per_task[task] for task, value in line.per_task.items()}


def rows(found: Sequence[Line], budget: int) -> list[dict[str, Any]]:
    """What `table --json` prints."""
    experts = next(line for line in found if line.kind == "expert")
    return [
        {
            "method": line.method,
            "kind": line.kind,
            "budget": budget if BY_NAME.get(line.method, BY_NAME["ties"]).labels else 0,
            "unlabelled": line.unlabelled,
            "selected": line.selected,
            "mean": round(line.mean, 5),
            "normalised": round(statistics.mean(normalised(line, experts).values()), 5),
            "worst": round(min(line.per_task.values()), 5),
            "seconds": round(line.seconds, 1),
            "peak_rss_mb": line.peak_rss_mb,
            "per_task": {task: round(value, 5) for task, value in line.per_task.items()},
        }
        for line in found
    ]


def difference(one: Line, other: Line | None = None) -> tuple[float, float]:
    """(mean accuracy of `one` less that of `other`, its standard error), paired by test example and draw.

    Draws that one of them lacks do not count. The variance is that of sampling test examples, task by task, and that of
    drawing labels.
    """
    numbers = [number for line in (one, other) if line is not None and (number := _draws(line)) is not None]
    draws = range(min(numbers, default=1))
    gaps: list[dict[str, list[float]]] = []
    for draw in draws:
        mine = _right(one, draw)
        theirs = _right(other, draw) if other else {task: [0.0] * len(hits) for task, hits in mine.items()}
        gaps.append({task: [a - b for a, b in zip(hits, theirs[task], strict=True)] for task, hits in mine.items()})
    tasks = list(gaps[0])
    variance = 0.0
    for task in tasks:
        averaged = [statistics.mean(values) for values in zip(*(gap[task] for gap in gaps), strict=True)]
        variance += statistics.variance(averaged) / len(averaged) / len(tasks) ** 2
    of_draws = [statistics.mean(statistics.mean(gap[task]) for task in tasks) for gap in gaps]
    if len(of_draws) > 1:
        variance += statistics.variance(of_draws) / len(of_draws)
    return statistics.mean(of_draws), variance**0.5


def _draws(line: Line) -> int | None:
    """How many draws there are results for; None where one result is that of every draw."""
    return None if len(line.cells) == 1 and line.cells[0]["draw"] is None else len(line.cells)


def _right(line: Line, draw: int) -> dict[str, list[float]]:
    """1 or 0 per test example, by task. A model that no labels play a part in is the same in every draw."""
    cell = line.cells[draw if len(line.cells) > 1 else 0]
    return {task: bits(digits, cell["examples"][task]) for task, digits in cell["right"].items()}


def bits(digits: str, number: int) -> list[float]:
    """The inverse of how cells keep them."""
    whole = int(digits, 16)
    return [float(whole >> place & 1) for place in range(number)]
