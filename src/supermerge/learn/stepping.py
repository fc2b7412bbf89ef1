"""What every engine of learning has in common: coefficients, their optimiser, and the backward passes of a step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from supermerge.distributed import ALONE, Peers
from supermerge.errors import UsageError
from supermerge.learn.adam import Adam, AdamState
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.links import link as find_link

Loss = Callable[[nn.Module, str, Any], Tensor]
"""(model, task, batch) → scalar."""

Item = tuple[str, Any, float]
"""(task, batch, weight)."""


class Stepping(ABC):
    """Steps coefficients, and keeps a model equal to the merge that they describe. Use as a context manager."""

    peers: Peers = ALONE
    """The processes that step them together."""

    def __init__(self, coefficients: Coefficients, adam: Adam, clip: float | None) -> None:
        self.coefficients = coefficients
        self.states = {group: AdamState.like(w) for group, w in coefficients.w.items()}
        self._adam = adam
        self._clip = clip
        self._link = find_link(coefficients.link)
        self._by_row = coefficients.granularity == "row"
        self._last_backward = False

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the model as an ordinary one that holds the merge."""

    @abstractmethod
    def step(self, items: Sequence[Item], model: nn.Module, loss: Loss, *, lr_factor: float = 1.0) -> list[float]:
        """One optimiser step on the weighted sum of the items' losses; returns the unweighted losses.

        One backward per item. A loss that is not finite ends the list, and nothing has moved: the caller decides.
        """

    @abstractmethod
    def rebuild(self) -> None:
        """Make the model the merge of the coefficients as they are."""

    def snapshot(self) -> tuple[Coefficients, dict[str, AdamState]]:
        """Copies of the coefficients and of the optimiser's state."""
        return self.coefficients.copy(), {group: state.copy() for group, state in self.states.items()}

    def restore(self, snapshot: tuple[Coefficients, dict[str, AdamState]]) -> None:
        """Take back a snapshot, and make the model the merge that it describes."""
        coefficients, states = snapshot
        self.coefficients.assign(coefficients)
        self.states = {group: state.copy() for group, state in states.items()}
        self._drop_gradients()
        self.rebuild()

    @abstractmethod
    def _drop_gradients(self) -> None:
        """Forget what backward passes left behind."""

    def _backward(self, items: Sequence[Item], model: nn.Module, loss: Loss) -> list[float]:
        """A backward pass per item; stops before the first whose loss is not finite, without a trace."""
        losses: list[float] = []
        for index, (task, batch, weight) in enumerate(items):
            value = loss(model, task, batch)
            _require_a_loss(value, task)
            losses.append(float(value.detach()))
            if not math.isfinite(losses[-1]):
                self._drop_gradients()
                break
            self._backward_of(value * weight, last=index == len(items) - 1)
        return losses

    def _backward_of(self, value: Tensor, *, last: bool) -> None:
        self._last_backward = last
        try:
            value.backward()
        finally:
            self._last_backward = False

    def _step_groups(self, gradients: Mapping[str, Tensor], lr_factor: float) -> None:
        """Step the groups in `gradients`: ∂L/∂c by group, pulled back through the link, clipped by their norm."""
        w = self.coefficients.w
        pulled = {group: self._link.pull_back(w[group], dc) for group, dc in gradients.items()}
        if self._clip is not None:
            norm = float(torch.stack([g.double().pow(2).sum() for g in pulled.values()]).sum().sqrt())
            if norm > self._clip:
                pulled = {group: g * (self._clip / norm) for group, g in pulled.items()}
        for group, gradient in pulled.items():
            self.states[group].steps += 1
            self._adam.step(w[group], gradient, self.states[group], slice(None), lr_factor)


def _require_a_loss(value: object, task: str) -> None:
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point() and value.requires_grad:
        return
    found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    without = " without a gradient" if isinstance(value, Tensor) and not value.requires_grad else ""
    raise UsageError(
        f"loss(model, {task!r}, batch) gave {found}{without}; expected one floating number, a tensor with a gradient.",
        hint="Return what the model's outputs were reduced to, such as their mean cross-entropy.",
    )
