"""Links: functions that turn the learned numbers w into the coefficients c that multiply the task vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from supermerge.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Link:
    """c = apply(w), and its derivative.

    Tensors are `[k]` or `[k, rows]`, the experts first. An `elementwise` link lets every c(i) be computed from w(i)
    alone, which is what makes one pass over the task vectors enough (see `engine`).
    """

    name: str
    elementwise: bool
    apply: Callable[[Tensor], Tensor]
    pull_back: Callable[[Tensor, Tensor], Tensor]
    """(w, dL/dc) → dL/dw."""
    start: Callable[[float], float]
    """The w that gives the coefficient asked for; raises ValueError for one that is out of reach."""
    inverse: Callable[[Tensor], Tensor]
    """The w that give the coefficients asked for, or where they are out of reach, ones near them."""


def _softmax_pull_back(w: Tensor, dc: Tensor) -> Tensor:
    c = torch.softmax(w, dim=0)
    return c * (dc - (c * dc).sum(dim=0, keepdim=True))


def _clamp_pull_back(w: Tensor, dc: Tensor) -> Tensor:
    return dc * ((w >= 0) & (w <= 1))


# Where a link is flat, nothing is learned: no start is nearer to its bounds than this.
_NEAREST = 0.01


def _atanh_within(c: Tensor) -> Tensor:
    return torch.atanh(c.clamp(_NEAREST - 1, 1 - _NEAREST))


def _log_within(c: Tensor) -> Tensor:
    return torch.log(c.clamp(min=_NEAREST))


def _within_unit(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError
    return value


_LINKS = {
    link.name: link
    for link in (
        # SuperMerge (arXiv 2412.10416): every coefficient in (-1, 1).
        Link("tanh", True, torch.tanh, lambda w, dc: dc * (1 - torch.tanh(w) ** 2), math.atanh, _atanh_within),
        Link("identity", True, lambda w: w, lambda w, dc: dc, lambda value: value, lambda c: c),
        # AdaMerging (arXiv 2310.02575): no gradient outside [0, 1], as in the authors' code.
        Link("clamp", True, lambda w: w.clamp(0, 1), _clamp_pull_back, _within_unit, lambda c: c.clamp(0, 1)),
        # Coefficients of one tensor sum to 1 over the experts; equal starts give 1/k whatever their value.
        Link("softmax", False, lambda w: torch.softmax(w, dim=0), _softmax_pull_back, lambda value: 0.0, _log_within),
    )
}


def link(name: str) -> Link:
    """The link called `name`; an unknown one is a RecipeError."""
    if name not in _LINKS:
        raise RecipeError(f"link: unknown link {name!r}.", hint=f"Use one of {', '.join(_LINKS)}.")
    return _LINKS[name]


def link_names() -> tuple[str, ...]:
    """The names of all links."""
    return tuple(_LINKS)
