"""The layers of a model, read from the names of its tensors, and values that change from layer to layer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

_LAYER = re.compile(r"^((?:.*?\.)?)(\d+)(?=\.)")


def layer_of(name: str) -> str | None:
    """The name up to its first number (`encoder.layer.3.attention.…` → `encoder.layer.3`); None where there is none."""
    found = _LAYER.match(name)
    return found.group() if found else None


def layer_number(name: str) -> tuple[str, int] | None:
    """What stands before a name's first number, and that number; None where there is none."""
    found = _LAYER.match(name)
    return (found[1], int(found[2])) if found else None


def family(name: str) -> str | None:
    """The name without its layer's number: what its namesakes in the other layers share; None where there is none."""
    layer, found = layer_of(name), layer_number(name)
    return None if layer is None or found is None else f"{found[0]}*{name[len(layer) :]}"


def stacks(names: Iterable[str]) -> dict[str, int]:
    """What stands before the number of a layer → how many such layers there are."""
    counts: defaultdict[str, int] = defaultdict(int)
    for name in names:
        found = layer_number(name)
        if found:
            counts[found[0]] = max(counts[found[0]], found[1] + 1)
    return dict(counts)


def place_in(number: int, count: int) -> float:
    """How far through `count` layers one is: 0 for the first, 1 for the last; a lone layer is the last."""
    return number / (count - 1) if count > 1 else 1.0


def places(names: Sequence[str]) -> dict[str, float]:
    """How far through its stack of layers every tensor is; 0 for those in no layer."""
    counts, found = stacks(names), {name: layer_number(name) for name in names}
    return {name: place_in(layer[1], counts[layer[0]]) if layer else 0.0 for name, layer in found.items()}


def interpolated(values: Sequence[float], place: float) -> float:
    """The value at `place` of the way along equally spaced `values`, linear in between."""
    position = place * (len(values) - 1)
    first = min(int(position), len(values) - 1)
    share = position - first
    return (1 - share) * values[first] + share * values[min(first + 1, len(values) - 1)]
