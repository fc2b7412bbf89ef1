"""How the learning rate changes over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable


def schedule(name: str, steps: int) -> Callable[[int], float] | None:
    """The factor on the learning rate at a step: `cosine` falls from 1 towards 0 over `steps`; `constant` is None."""
    if name == "constant":
        return None
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
