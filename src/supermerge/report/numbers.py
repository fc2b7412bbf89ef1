"""Numbers as people read them: scores, seconds and bytes."""

from __future__ import annotations


def score(value: float) -> str:
    """Three decimals below 10, then fewer."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def seconds(value: float) -> str:
    """`0.4 s`, `48 s`, `3 min 05 s`, `2 h 07 min`."""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 59.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes:02d} min"


def size(num_bytes: int) -> str:
    """Decimal units: `912 B`, `90.9 MB`, `1.95 GB`."""
    value, unit = float(num_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
