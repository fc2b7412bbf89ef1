"""What a run gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supermerge.report.results import Results


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: where it lies, and its numbers (the content of `metrics.json`)."""

    directory: Path
    results: Results
