"""Progress on a terminal: finished phases above, the current one with its bar, loss, time left and memory below."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from supermerge.cli.learning import LearningProgress
from supermerge.events import Event
from supermerge.report.numbers import score, seconds

_BAR_WIDTH = 32


class LiveProgress:
    """A subscriber that redraws itself; leaving it removes the current phase and keeps the finished ones."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._spinner = Spinner("dots", style="cyan")
        self._phases: list[tuple[str, float]] = []
        self._done: tuple[int, int, str] | None = None
        self._learning: LearningProgress | None = None
        # Last: it draws at once.
        self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        fields = event.fields
        match event.kind:
            case "phase_started":
                self._phases.append((fields["phase"], time.monotonic()))
                self._done = self._learning = None
            case "phase_ended":
                self._end_phase(fields["phase"], fields["seconds"])
            case "progress":
                self._done = (fields["done"], fields["total"], fields["unit"])
            case "step":
                self._learning = self._learning or LearningProgress()
                self._learning.see(event)
            case "evaluated":
                self._line(f"{fields['model']} on {fields['task']}: {fields['metric']} {score(fields['value'])}", "dim")
            case "warning":
                self._console.print(Text.assemble(("! ", "bold yellow"), (fields["message"], "yellow")))
            case "note":
                self._line(fields["message"], "dim")
            case _:
                pass

    def _end_phase(self, phase: str, took: float) -> None:
        names = [name for name, _ in self._phases]
        if phase in names:
            del self._phases[names.index(phase) :]
        line = Text.assemble(("✓ ", "green"), _title(phase), (f"  {seconds(took)}", "dim"))
        if self._learning is not None and self._learning.step:
            line.append(f"  {self._summary(self._learning)}", "dim")
            self._learning = None
        self._console.print(line)
        self._done = None

    def _line(self, message: str, style: str) -> None:
        self._console.print(Text(f"  {message}", style=style))

    def _summary(self, learning: LearningProgress) -> str:
        best = f", best held-back loss {score(learning.best[0])} after {learning.best[1]}" if learning.best else ""
        return f"{learning.step} steps{best}"

    def render(self) -> RenderableType:
        """The current phase, as it is drawn now."""
        if not self._phases:
            return Text()
        name, started = self._phases[-1]
        row = Table.grid(padding=(0, 1))
        parts: list[RenderableType] = [self._spinner, Text(_title(name))]
        if self._learning is not None and self._learning.step:
            done, total, unit = self._learning.step, self._learning.steps, "steps"
        else:
            done, total, unit = self._done or (0, 0, "")
        if total:
            parts += [ProgressBar(total=total, completed=done, width=_BAR_WIDTH, complete_style="cyan")]
            parts += [Text(f"{done:,}/{total:,} {unit}", style="dim")]
        else:
            parts += [Text(seconds(time.monotonic() - started), style="dim")]
        row.add_row(*parts)
        return Group(row, *self._learning_lines()) if self._learning is not None else row

    def _learning_lines(self) -> list[RenderableType]:
        learning = self._learning
        if learning is None or not learning.losses:
            return []
        tasks = "   ".join(f"{task} {score(loss)}" for task, loss in learning.by_task.items())
        # The facts need nearly 80 columns; a line that wraps now and then would make the display jump.
        lines = [f"  {' · '.join(learning.facts())}", Text.assemble("  ", (learning.curve(), "cyan"), f"  {tasks}")]
        return [Text.assemble(line, no_wrap=True, overflow="ellipsis") for line in lines]


def _title(phase: str) -> str:
    return phase[:1].upper() + phase[1:].replace("_", " ")
