"""Progress as lines: readable text for a log file, or the events themselves as JSON."""

from __future__ import annotations

import json
import sys

from supermerge.cli.learning import LearningProgress
from supermerge.events import Event
from supermerge.report.numbers import score, seconds

# A line of progress at most this often, in seconds.
_EVERY = 5.0


class JsonLines:
    """Every event as one JSON object per line; with `quiet` only warnings."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, event: Event) -> None:
        if not self._quiet or event.kind == "warning":
            print_line(json.dumps({"event": event.kind, "at": event.at, **event.fields}, ensure_ascii=False))


class TextLines:
    """The events that a person waits for, one line each; with `quiet` only warnings."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._learning = LearningProgress()
        self._last_at = 0.0

    def __call__(self, event: Event) -> None:
        line = self._line(event)
        if line and (not self._quiet or event.kind == "warning"):
            print_line(line)

    def _line(self, event: Event) -> str | None:
        fields = event.fields
        match event.kind:
            case "phase_started":
                self._learning, self._last_at = LearningProgress(), event.at
            case "phase_ended":
                return f"{fields['phase']}: {seconds(fields['seconds'])}"
            case "progress" if self._is_due(event):
                return f"{fields['phase']}: {fields['done']:,} of {fields['total']:,} {fields['unit']}"
            case "learn_started":
                return f"{fields['coefficients']:,} coefficients, up to {fields['steps']} steps"
            case "step":
                self._learning.see(event)
                step, steps = self._learning.step, self._learning.steps
                if self._is_due(event, last=step == steps):
                    return f"step {step}/{steps}: {', '.join(self._learning.facts())}"
            case "evaluated":
                return f"{fields['model']} on {fields['task']}: {fields['metric']} {score(fields['value'])}"
            case "warning":
                return f"warning: {fields['message']}"
            case "note":
                return fields["message"]
            case _:
                pass
        return None

    def _is_due(self, event: Event, last: bool = False) -> bool:
        if not last and event.at - self._last_at < _EVERY:
            return False
        self._last_at = event.at
        return True


def print_line(line: str) -> None:
    """One whole line to stderr, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
