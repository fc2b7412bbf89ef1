"""Cells: one result each, one JSON file each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "suite"
DRAWS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a suite's table, for one draw of labelled examples; `draw` is None where labels play no part.

    With `left_out`, experts and data of the suite's `left_out` tasks take no part in the merge, and those are the tasks
    that it is tested on, under their own heads.
    """

    suite: str
    row: str
    budget: int
    draw: int | None
    left_out: bool = False

    @property
    def name(self) -> str:
        """What it is called in files and logs."""
        row = f"ood.{self.row}" if self.left_out else self.row
        return row if self.draw is None else f"{row}.b{self.budget}.d{self.draw}"

    @property
    def file(self) -> Path:
        """Where its result is."""
        return RESULTS / self.suite / f"{self.name}.json"

    def write(self, found: dict[str, Any]) -> None:
        """Keep a result; the file appears when it is whole."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        staging = self.file.with_suffix(".partial")
        staging.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        staging.replace(self.file)


def results(suite: str) -> list[dict[str, Any]]:
    """All results of a suite."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted((RESULTS / suite).glob("*.json"))]


def budgets(suite: str, draw: int) -> list[int]:
    """The numbers of labelled examples per task that a draw has results for."""
    return sorted({found["budget"] for found in results(suite) if found["draw"] == draw})
