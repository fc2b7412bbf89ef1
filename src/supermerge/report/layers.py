"""Where a tensor sits in its model, read from its name alone: `encoder.layer.3.attention.query.weight` is in layer
`encoder.layer.3` and of kind `attention.query.weight`. Works for any architecture that numbers its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

OUTSIDE = "–"


@dataclass(frozen=True, slots=True)
class Place:
    """`layer` is a short label ("3", or "encoder 3" where stacks differ), OUTSIDE for tensors in no numbered layer."""

    layer: str
    kind: str


def places(tensors: Sequence[str]) -> list[Place]:
    """The place of every tensor: its first numeric part closes the layer's name; the rest is its kind.

    Layer labels leave out the words that all stacks share: `encoder.layer.0` alone becomes `0`, beside
    `decoder.layer.0` they become `encoder 0` and `decoder 0`.
    """
    split = [_split(name) for name in tensors]
    stacks = [stack for stack, _, _ in split if stack is not None]
    short = _short_names(list(dict.fromkeys(stacks)))
    return [
        Place(OUTSIDE, kind) if stack is None else Place(f"{short[stack]} {number}".strip(), kind)
        for stack, number, kind in split
    ]


def shorten(kinds: Sequence[str], limit: int) -> list[str]:
    """The kinds, cut to as many leading parts as leave at most `limit` different ones (at least one part)."""
    parts = [kind.split(".") for kind in kinds]
    for depth in range(max((len(part) for part in parts), default=1), 0, -1):
        cut = [".".join(part[:depth]) for part in parts]
        if len(set(cut)) <= limit or depth == 1:
            return cut
    return list(kinds)


def _split(name: str) -> tuple[str | None, str, str]:
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part.isdecimal() and 0 < position < len(parts) - 1:
            return ".".join(parts[:position]), part, ".".join(parts[position + 1 :])
    return None, "", name


def _short_names(stacks: Sequence[str]) -> dict[str, str]:
    shared = Counter(part for stack in stacks for part in set(stack.split(".")))
    return {stack: ".".join(p for p in stack.split(".") if shared[p] < len(stacks)) for stack in stacks}
