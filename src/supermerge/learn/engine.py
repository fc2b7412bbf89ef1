"""The streaming engine: learns the coefficients with one ordinary model in memory, whatever the number of experts.

For θm(j) = θp(j) + Σᵢ c(i, j) τ(i, j) with c = link(w), the chain rule gives

    ∂L/∂c(i, j) = ⟨∂L/∂θm(j), τ(i, j)⟩

so an ordinary backward pass of the merged model holds all that is needed. As soon as the gradient of tensor j is
complete, the task vectors of tensor j are read from the experts' files one by one, the gradient is reduced to k numbers
and freed. Where w(i, j) needs nothing but tensor j (granularity `tensor` or `row`, an elementwise link, no norm
clipping), the same reading also steps w(i, j) and accumulates the new θm(j): one pass over the task vectors per step.
Otherwise the numbers are stepped after the backward pass and the tensors are written in a second reading.

Source of the merge and its link: SuperMerge, arXiv 2412.10416. The streaming is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supermerge.errors import SupermergeError, UsageError
from supermerge.learn.adam import Adam, AdamState
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.links import link as find_link
from supermerge.learn.merged import Merged
from supermerge.learn.task_vectors import TaskVectors

Loss = Callable[[nn.Module, str, Any], Tensor]
"""(model, task, batch) → scalar."""

Item = tuple[str, Any, float]
"""(task, batch, weight)."""


class Engine:
    """Keeps a model's parameters equal to the merge that the coefficients describe, and steps the coefficients.

    `parameters` are the model's own, by the name that the task vectors know them by. Use as a context manager: the
    hooks on the parameters are removed at the end.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        vectors: TaskVectors,
        coefficients: Coefficients,
        adam: Adam,
        *,
        clip: float | None = None,
    ) -> None:
        self.coefficients = coefficients
        self.states = {group: AdamState.like(w) for group, w in coefficients.w.items()}
        self._parameters = parameters
        self._vectors = vectors
        self._merged = Merged(parameters, vectors)
        self._adam = adam
        self._clip = clip
        self._link = find_link(coefficients.link)
        self._one_pass = self._link.elementwise and clip is None and coefficients.granularity in ("tensor", "row")
        self._gradients: dict[str, Tensor] = {}
        self._done: set[str] = set()
        self._last_backward = False
        self._lr_factor = 1.0
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._hook(name)) for name, parameter in parameters.items()
        ]

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._drop_gradients()

    def step(self, items: Sequence[Item], model: nn.Module, loss: Loss, *, lr_factor: float = 1.0) -> list[float]:
        """One optimiser step on the weighted sum of the items' losses; returns the unweighted losses.

        One backward per item; the coefficients move during and right after the last. A loss that is not finite ends
        the list, and nothing has moved: the caller decides.
        """
        self._done.clear()
        self._gradients.clear()
        self._lr_factor = lr_factor
        losses: list[float] = []
        for index, (task, batch, weight) in enumerate(items):
            value = loss(model, task, batch)
            losses.append(float(value.detach()))
            if not math.isfinite(losses[-1]):
                self._drop_gradients()
                return losses
            self._last_backward = index == len(items) - 1
            try:
                (value * weight).backward()
            finally:
                self._last_backward = False
        # Parameters that the last backward did not touch still hold what earlier ones left.
        for name, parameter in self._parameters.items():
            if name not in self._done and parameter.grad is not None:
                self._reduce(name, parameter)
        if not self._one_pass:
            self._step_groups()
        return losses

    def rebuild(self, names: Iterable[str] | None = None) -> None:
        """Write θm(j) = θp(j) + Σᵢ c(i, j) τ(i, j) into the model, for all tensors or those of `names`."""
        for name in self._parameters if names is None else names:
            self._merged.write(name, self.coefficients.effective(name))

    def snapshot(self) -> tuple[Coefficients, dict[str, AdamState]]:
        """Copies of the coefficients and of the optimiser's state."""
        return self.coefficients.copy(), {group: state.copy() for group, state in self.states.items()}

    def restore(self, snapshot: tuple[Coefficients, dict[str, AdamState]]) -> None:
        """Take back a snapshot, and write the merge it describes into the model."""
        coefficients, states = snapshot
        self.coefficients.assign(coefficients)
        self.states = {group: state.copy() for group, state in states.items()}
        self._drop_gradients()
        self.rebuild()

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def when_complete(parameter: Tensor) -> None:
            if not self._last_backward:
                return
            if name in self._done:
                raise UsageError(
                    f"The gradient of {name!r} arrived twice in one backward pass.",
                    hint="Reentrant activation checkpointing does this: use gradient checkpointing with "
                    "use_reentrant=False, or none.",
                )
            self._reduce(name, parameter)

        return when_complete

    def _reduce(self, name: str, parameter: Tensor) -> None:
        """Reduce the gradient of tensor j to k numbers (or rows of numbers), free it, and step where that is enough."""
        gradient = parameter.grad
        if gradient is None:
            raise SupermergeError(f"The hook of {name!r} ran without a gradient.")
        parameter.grad = None
        gradient = gradient.to(self._vectors.dtype)
        self._done.add(name)
        if self._one_pass:
            self._step_tensor(name, gradient)
        else:
            self._collect(name, gradient)

    def _step_tensor(self, name: str, gradient: Tensor) -> None:
        """Read each τ(i, j) once: reduce, step w(i, j), and accumulate the new θm(j)."""
        group = self.coefficients.groups[name]
        w, state = self.coefficients.w[group], self.states[group]
        base = self._vectors.base(name)
        merged = self._merged.begin(name, base)
        state.steps += 1
        with torch.no_grad():
            for experts, taus, dc in self._reduced(name, base, gradient):
                dw = self._link.pull_back(w[experts], dc.to(w.device))
                self._adam.step(w, dw, state, experts, self._lr_factor)
                for tau, c in zip(taus, self._link.apply(w[experts]), strict=True):
                    self._merged.add(merged, tau, c)
        self._merged.end(name, merged)

    def _collect(self, name: str, gradient: Tensor) -> None:
        """Add this tensor's ⟨gradient, τ(i, j)⟩ to the gradient of its group's coefficients."""
        group = self.coefficients.groups[name]
        base = self._vectors.base(name)
        dc = torch.cat([dc for _, _, dc in self._reduced(name, base, gradient)])
        dc = dc.to(self.coefficients.w[group].device)
        self._gradients[group] = self._gradients[group] + dc if group in self._gradients else dc

    def _reduced(self, name: str, base: Tensor, gradient: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        return self._vectors.reduced(name, base, gradient, by_row=self.coefficients.granularity == "row")

    def _step_groups(self) -> None:
        """Step every group that received a gradient, then write the tensors whose coefficients moved."""
        w = self.coefficients.w
        gradients = {group: self._link.pull_back(w[group], dc) for group, dc in self._gradients.items()}
        if self._clip is not None:
            norm = float(torch.stack([g.double().pow(2).sum() for g in gradients.values()]).sum().sqrt())
            if norm > self._clip:
                gradients = {group: g * (self._clip / norm) for group, g in gradients.items()}
        for group, gradient in gradients.items():
            self.states[group].steps += 1
            self._adam.step(w[group], gradient, self.states[group], slice(None), self._lr_factor)
        self.rebuild(name for name in self._parameters if self.coefficients.groups[name] in gradients)

    def _drop_gradients(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None
