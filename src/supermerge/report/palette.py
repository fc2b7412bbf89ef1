"""One palette for page and pictures: names with a light and a dark value, safe for colour-blind readers.

Charts are written with CSS variables (`var(--ink)`), so that the page's style sheet colours them in light, dark and
print; pictures replace the variables by the light values. Positive is teal (the accent), negative is orange-brown.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

Theme = Literal["light", "dark"]

_COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#fcfbf8", "#171716"),
    "panel": ("#f4f2ec", "#20201e"),
    "ink": ("#1f1e1b", "#ebe8e1"),
    "muted": ("#67645c", "#a09c92"),
    "faint": ("#a8a49a", "#6f6c64"),
    "line": ("#e3e0d8", "#34332f"),
    "accent": ("#0b6b72", "#56b8bf"),
    "caution": ("#a8480f", "#e79a63"),
}
# Lightness changes evenly from the middle to both ends, which differ in hue and so stay apart for colour-blind readers.
_ANCHORS: tuple[tuple[str, str], ...] = (
    ("#8a3a0b", "#f2a873"),
    ("#ad5826", "#c98352"),
    ("#c97f52", "#9f643c"),
    ("#dea985", "#754b2f"),
    ("#edd3c0", "#4c3526"),
    ("#f1eee7", "#262523"),
    ("#c9dfde", "#22403f"),
    ("#97c4c4", "#25605f"),
    ("#61a3a6", "#328184"),
    ("#307f85", "#49a3a8"),
    ("#085a61", "#6fc9cf"),
)


def _between(first: str, second: str) -> str:
    pairs = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return "#" + bytes((a + b) // 2 for a, b in pairs).hex()


def _refined(anchors: list[str]) -> list[str]:
    """The anchors with one colour more between every two."""
    finer = [colour for first, second in pairwise(anchors) for colour in (first, _between(first, second))]
    return [*finer, anchors[-1]]


_RAMP = list(zip(*(_refined([pair[i] for pair in _ANCHORS]) for i in (0, 1)), strict=True))
RAMP = tuple(f"ramp{i}" for i in range(len(_RAMP)))
COLOURS: dict[str, dict[Theme, str]] = {
    name: {"light": light, "dark": dark}
    for name, (light, dark) in {**_COLOURS, **dict(zip(RAMP, _RAMP, strict=True))}.items()
}


def colour(name: str) -> str:
    """The CSS variable of a colour."""
    if name not in COLOURS:
        raise KeyError(name)
    return f"var(--{name})"


def css(theme: Theme) -> str:
    """The declarations that give every variable its value."""
    return " ".join(f"--{name}: {values[theme]};" for name, values in COLOURS.items())


def resolved(text: str, theme: Theme) -> str:
    """`text` with every variable replaced by its value."""
    return re.sub(r"var\(--([a-z0-9]+)\)", lambda found: COLOURS[found[1]][theme], text)
