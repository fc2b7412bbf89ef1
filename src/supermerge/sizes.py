"""Sizes in bytes as people write them: GB is 10⁹, GiB is 2³⁰."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", start=1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", start=1)}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")


def parse_size(text: str | int) -> int:
    """Bytes in `16GB`, `512 MiB` or a plain number of bytes; ValueError where it is none of these."""
    found = _SIZE.fullmatch(str(text))
    if isinstance(text, bool) or found is None or found[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as 16GB (10⁹ bytes) or 16GiB (2³⁰)")
    size = round(Decimal(found[1]) * _UNITS[found[2].lower()])
    if size <= 0:
        raise ValueError(f"{text!r} is not a size above zero")
    return size


def write_size(size: int) -> str:
    """`size` bytes in the largest unit that has no remainder, as `parse_size` reads it: `16GB`, `3GiB`, `1001B`."""
    unit = max((unit for unit, factor in _UNITS.items() if unit and size % factor == 0), key=_UNITS.__getitem__)
    return f"{size // _UNITS[unit]}{unit.upper().replace('IB', 'iB')}"
