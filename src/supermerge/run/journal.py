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
        self.warnings: list[str] = []
        self._lines: list[str] = []
        self._phases: dict[str, Phase] = {}
        self._depth = 0

    @property
    def phases(self) -> list[Phase]:
        """What the run consisted of, in order: a phase inside another counts with that one, a repeated one once."""
        return list(self._phases.values())

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            return
        self._lines.append(json.dumps({"event": event.kind, "at": round(event.at, 3), **event.fields}, default=str))
        if event.kind == "warning" and event.fields["message"] not in self.warnings:
            self.warnings.append(event.fields["message"])
        if event.kind == "phase_started":
            self._depth += 1
        if event.kind == "phase_ended":
            self._depth -= 1
            if self._depth == 0:
                self._count(event.fields["phase"], float(event.fields["seconds"]))

    def _count(self, name: str, seconds: float) -> None:
        before = self._phases[name].seconds if name in self._phases else 0.0
        self._phases[name] = Phase(name=name, seconds=before + seconds, peak_rss_bytes=peak_bytes())

    def write(self, path: Path) -> None:
        """Write everything seen so far."""
        path.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")


@contextmanager
def journalled() -> Iterator[Journal]:
    """A journal of the events inside the block."""
    journal = Journal()
    with subscribed(journal):
        yield journal
