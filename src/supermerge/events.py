"""One stream of events: the progress display, `run.jsonl` and the standard logger all subscribe to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: `kind` names it, `at` is seconds since the epoch, `fields` are JSON values."""

    kind: str
    at: float
    fields: dict[str, Any] = field(default_factory=dict)


Subscriber = Callable[[Event], None]
_subscribers: list[Subscriber] = []
_muted: list[bool] = []


def emit(kind: str, **fields: Any) -> None:
    """Tell every subscriber, in the order they subscribed, that `kind` happened."""
    if _muted and kind != "warning":
        return
    event = Event(kind, time.time(), fields)
    for subscriber in tuple(_subscribers):
        subscriber(event)


@contextmanager
def subscribed(subscriber: Subscriber) -> Iterator[None]:
    """Let `subscriber` see every event emitted inside the `with` block."""
    _subscribers.append(subscriber)
    try:
        yield
    finally:
        _subscribers.remove(subscriber)


@contextmanager
def muted() -> Iterator[None]:
    """Let nobody hear of the `with` block, warnings excepted: for work that is a detail of a larger step."""
    _muted.append(True)
    try:
        yield
    finally:
        _muted.pop()


@contextmanager
def phase(name: str, **fields: Any) -> Iterator[None]:
    """Emit `phase_started` and `phase_ended` (with `seconds`) around a block; the latter also when it raises."""
    start = time.perf_counter()
    emit("phase_started", phase=name, **fields)
    try:
        yield
    finally:
        emit("phase_ended", phase=name, seconds=time.perf_counter() - start)
