"""What the `step` events of learning add up to: how far it is, how the loss moves, how long it will take."""

from __future__ import annotations

from dataclasses import dataclass, field

from supermerge.events import Event
from supermerge.report.numbers import score, seconds, size

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class LearningProgress:
    """The steps seen so far."""

    step: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    by_task: dict[str, float] = field(default_factory=dict)
    held_back: float | None = None
    best: tuple[float, int] | None = None
    rss_bytes: int | None = None
    _times: list[float] = field(default_factory=list)

    def see(self, event: Event) -> None:
        """Take in one `step` event."""
        fields = event.fields
        self.step, self.steps = fields["step"] + 1, fields["steps"]
        self.losses.append(fields["loss"])
        self.by_task = fields.get("losses") or {}
        self.rss_bytes = fields.get("rss_bytes")
        self._times = [*self._times[-9:], event.at]
        held_back = fields.get("held_back")
        if held_back is not None:
            self.held_back = held_back
            if self.best is None or held_back < self.best[0]:
                self.best = (held_back, fields["step"])

    @property
    def seconds_left(self) -> float | None:
        """From the pace of the last ten steps; None before there is one."""
        if len(self._times) < 2:
            return None
        pace = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        return pace * (self.steps - self.step)

    def facts(self) -> list[str]:
        """Loss, held-back loss, time left and memory, each as a few words, as far as they are known."""
        facts = [f"loss {score(self.losses[-1])}"] if self.losses else []
        if self.held_back is not None and self.best is not None:
            facts.append(f"held back {score(self.held_back)} (best {score(self.best[0])} after {self.best[1]})")
        if self.seconds_left is not None:
            facts.append(f"about {seconds(self.seconds_left)} left")
        if self.rss_bytes:
            facts.append(size(self.rss_bytes))
        return facts

    def curve(self, width: int = 24) -> str:
        """The latest losses as a row of bars."""
        latest = self.losses[-width:]
        low, high = min(latest), max(latest)
        span = (high - low) or 1.0
        return "".join(_BARS[round((loss - low) / span * (len(_BARS) - 1))] for loss in latest)
