"""Names beside the points of a chart, moved until none covers another name or a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_GLYPH = 5.5
_LINE = 11.0
_DOT = 5.0
"""Pixels: a letter's width and a line's height at font size 10, and half a point's size."""


@dataclass(frozen=True, slots=True)
class Label:
    """Where a name goes: its middle line, and whether it ends left of its point instead of beginning right of it."""

    y: float
    left: bool


def placed(names: Sequence[str], at: Sequence[tuple[float, float]], width: float) -> list[Label]:
    """A place for every name, in pixels; `at` are the points. The first ones have the first choice.

    Where nothing near is free, a name stays where it would be alone.
    """
    taken = [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in at]
    found = []
    for own, (name, (x, y)) in enumerate(zip(names, at, strict=True)):
        others = taken[:own] + taken[own + 1 :]
        for label in _places(y):
            box = _box(name, x, label)
            if box[0] >= 0 and box[2] <= width and not any(_meet(box, other) for other in others):
                break
        else:
            label = Label(y, left=False)
        found.append(label)
        taken.append(_box(name, x, label))
    return found


def _places(y: float) -> Iterator[Label]:
    """Beside the point first, then further and further above and below."""
    for distance in range(0, 40, 3):
        for sign in (1, -1):
            for left in (False, True):
                yield Label(y + sign * distance, left)


def _box(name: str, x: float, label: Label) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a name."""
    length = _GLYPH * len(name)
    start = x - _DOT - 2 - length if label.left else x + _DOT + 2
    return start, label.y - _LINE / 2, start + length, label.y + _LINE / 2


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
