"""What a cell of a table must hold: a text, a class, or a number."""

from __future__ import annotations

import math
from typing import Any

from supermerge.errors import DataError
from supermerge.tasks.rows import Label

_LARGEST = (2 - 2**-23) * 2.0**127  # of fp32


def text_cell(value: Any, *, column: str, place: str) -> str:
    """The text in a cell, which may be empty. Raises DataError for anything but a text."""
    if not isinstance(value, str):
        raise DataError(f"{place}: column {column!r}: expected text, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: column {column!r}: the text holds half of a surrogate pair") from error
    return value


def class_cell(value: Any, *, column: str, place: str) -> str | int:
    """The class in a cell: its name, or its index. Raises DataError for anything else."""
    if isinstance(value, bool):
        return int(value)
    # Tables that once had gaps often store indices as floats.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) or (isinstance(value, str) and value):
        return value
    raise DataError(
        f"{place}: column {column!r}: expected a class name or index, found {shown(value)}",
        hint="Examples without a label belong into the file named under unlabelled.",
    )


def number_cell(value: Any, *, column: str, place: str) -> float:
    """The finite number in a cell, one that fp32 holds. Raises DataError for anything else."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if abs(number) <= _LARGEST:
        return number
    wanted = "a number up to 3.4e+38, the largest of fp32" if math.isfinite(number) else "a finite number"
    raise DataError(f"{place}: column {column!r}: expected {wanted}, found {shown(value)}")


def label_cell(value: Any, *, column: str, place: str, numeric: bool) -> Label:
    """The label in a cell: a number where `numeric`, else a class."""
    return (number_cell if numeric else class_cell)(value, column=column, place=place)


def shown(value: Any) -> str:
    """A short name for what was found in a cell, for messages."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '…'}"
