"""The layer that a tensor belongs to, read from its name."""

from __future__ import annotations

import re

_LAYER = re.compile(r"^(?:.*?\.)?\d+(?=\.)")


def layer_of(name: str) -> str | None:
    """The name up to its first number (`encoder.layer.3.attention.…` → `encoder.layer.3`); None where there is none."""
    found = _LAYER.match(name)
    return found.group() if found else None
