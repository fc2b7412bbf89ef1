"""The events of a run: written to `run.jsonl` as they come, and summed up into what the run cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supermerge.events import Event, subscribed
from supermerge.report.results import Phase
from supermerge.resources import peak_bytes


class Journal:
    """Collects phases, and writes every event but progress as one line of JSON once it has a file."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.warnings: list[str] = []
        self._lines: list[str] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            return
        self._lines.append(json.dumps({"event": event.kind, "at": round(event.at, 3), **event.fields}, default=str))
        if event.kind == "warning" and event.fields["message"] not in self.warnings:
            self.warnings.append(event.fields["message"])
        if event.kind == "phase_ended":
            seconds = float(event.fields["seconds"])
            self.phases.append(Phase(name=event.fields["phase"], seconds=seconds, peak_rss_bytes=peak_bytes()))

    def write(self, path: Path) -> None:
        """Write everything seen so far."""
        path.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")


@contextmanager
def journalled() -> Iterator[Journal]:
    """A journal of the events inside the block."""
    journal = Journal()
    with subscribed(journal):
        yield journal
