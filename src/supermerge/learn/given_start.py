"""Where learning starts from known coefficients, expert by expert: those of an earlier merge, or a plain number."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from supermerge.checkpoint import TensorSource
from supermerge.errors import RecipeError
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.links import link as find_link
from supermerge.learn.parameters import find_mergeable
from supermerge.methods.settings import LearnSettings

Given = float | Mapping[str, Tensor]
"""One expert's start: a coefficient for all tensors, or one per tensor by name (a scalar, or `[rows]`)."""


def given_of(coefficients: Coefficients) -> dict[str, Given]:
    """The coefficients of an earlier merge, by expert."""
    effective = {tensor: coefficients.effective(tensor) for tensor in coefficients.groups}
    return {expert: {tensor: c[i] for tensor, c in effective.items()} for i, expert in enumerate(coefficients.experts)}


def given_start(
    model: nn.Module,
    base: TensorSource,
    experts: Mapping[str, TensorSource],
    settings: LearnSettings,
    given: Mapping[str, Given],
) -> Coefficients:
    """The coefficients of `given`, or the nearest that the link reaches (see `links`).

    Tensors that share a coefficient start at the mean of theirs, and so do rows; rows that have none of their own start
    at their tensor's.
    """
    mergeable = find_mergeable(model, base, experts)
    tensors = mergeable.learned | mergeable.started
    start = Coefficients.start(
        experts,
        {tensor: tuple(value.shape) for tensor, value in tensors.items()},
        link=settings.link,
        granularity=settings.granularity,
        value=0.0,
        fixed=mergeable.started,
        dtype=mergeable.dtype,
    )
    wanted: dict[str, list[Tensor]] = {}
    for tensor, group in start.groups.items():
        like = start.w[group]
        rows = [_at(given[expert], tensor, like[i]) for i, expert in enumerate(experts)]
        wanted.setdefault(group, []).append(torch.stack(rows))
    link = find_link(settings.link)
    for group, found in wanted.items():
        start.w[group].copy_(link.inverse(torch.stack(found).mean(0)))
    return start


def _at(given: Given, tensor: str, like: Tensor) -> Tensor:
    """One expert's coefficient of a tensor, in the shape and dtype of `like`."""
    if isinstance(given, float | int):
        return torch.full_like(like, given)
    if tensor not in given:
        raise RecipeError(
            f"{tensor}: the tasks learn this tensor now, and the merge so far did not.",
            hint="Merge anew with `supermerge run`: tasks of another kind use other parts of the model.",
        )
    c = given[tensor].to(like.dtype)
    return c.mean() if like.dim() == 0 else c.expand_as(like)
