"""A parameter as mergekit writes it: a number, a gradient over the layers, or a list of values by filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Scalar = bool | int | float


@dataclass(frozen=True, slots=True)
class Case:
    """A value, or a gradient over the layers, for tensors whose name contains `filter` (None: for all)."""

    value: Scalar | tuple[float, ...]
    filter: str | None = None

    def fits(self, name: str) -> bool:
        """Whether it speaks of the tensor called `name`."""
        return self.filter in (None, "*") or str(self.filter) in name


Setting = tuple[Case, ...]
"""Cases of one parameter; the first that fits a tensor holds."""


def read_setting(written: Any) -> Setting:
    """The cases of what stands in the YAML; ValueError where it is none of the three forms."""
    if isinstance(written, Mapping) or (isinstance(written, list) and any(isinstance(i, Mapping) for i in written)):
        return tuple(_case(item) for item in (written if isinstance(written, list) else [written]))
    return (Case(_value(written)),)


def _case(item: Any) -> Case:
    if not isinstance(item, Mapping) or "value" not in item or set(item) - {"value", "filter"}:
        raise ValueError(f"expected 'value' and, optionally, 'filter', found {item!r}")
    text = item.get("filter")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"'filter' is a part of tensor names, found {text!r}")
    return Case(_value(item["value"]), text)


def _value(written: Any) -> Scalar | tuple[float, ...]:
    if isinstance(written, bool | int | float):
        return written
    if isinstance(written, list) and written and all(_is_number(item) for item in written):
        return tuple(float(item) for item in written)
    raise ValueError(f"expected a number, true or false, a list of numbers, or a list of values, found {written!r}")


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)
