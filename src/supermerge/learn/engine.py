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
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from supermerge.distributed import local
from supermerge.errors import UsageError
from supermerge.learn.adam import Adam
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.merged import Merged
from supermerge.learn.shards import WHOLE, Shards
from supermerge.learn.stepping import Item, Loss, Stepping
from supermerge.learn.task_vectors import TaskVectors
from supermerge.offload import offload_of


class Engine(Stepping):
    """Keeps a model's parameters equal to the merge that the coefficients describe, and steps the coefficients.

    `parameters` are the model's own, by the name that the task vectors know them by. The hooks on the parameters are
    removed at the end.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        vectors: TaskVectors,
        coefficients: Coefficients,
        adam: Adam,
        *,
        clip: float | None = None,
        shards: Shards = WHOLE,
    ) -> None:
        super().__init__(coefficients, adam, clip)
        self._parameters = parameters
        self._vectors = vectors
        self._shards = shards
        self._merged = Merged({name: local(parameter) for name, parameter in parameters.items()}, vectors)
        self._one_pass = self._link.elementwise and clip is None and coefficients.granularity in ("tensor", "row")
        self._gradients: dict[str, Tensor] = {}
        self._done: set[str] = set()
        self._lr_factor = 1.0
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._hook(name)) for name, parameter in parameters.items()
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._drop_gradients()

    def step(self, items: Sequence[Item], model: nn.Module, loss: Loss, *, lr_factor: float = 1.0) -> list[float]:
        """See `Stepping.step`; the coefficients move during and right after the last backward pass."""
        self._begin(lr_factor)
        losses = self._backward(items, model, loss)
        if not all(map(math.isfinite, losses)):
            return losses
        self._reduce_rest()
        if not self._one_pass:
            self._move(self._gradients)
        return losses

    def _begin(self, lr_factor: float) -> None:
        self._done.clear()
        self._gradients.clear()
        self._lr_factor = lr_factor

    def _reduce_rest(self) -> None:
        """Parameters that the last backward did not touch still hold what earlier ones left."""
        for name, parameter in self._parameters.items():
            if name not in self._done:
                self._reduce(name, parameter)

    def _move(self, gradients: Mapping[str, Tensor]) -> None:
        """Step the groups in `gradients`, and write, in a second reading, the tensors whose coefficients moved."""
        self._step_groups(gradients, self._lr_factor)
        self.rebuild(name for name in self._parameters if self.coefficients.groups[name] in gradients)

    def rebuild(self, names: Iterable[str] | None = None) -> None:
        """Write θm(j) = θp(j) + Σᵢ c(i, j) τ(i, j) into the model, for all tensors or those of `names`."""
        for name in self._parameters if names is None else names:
            self._merged.write(name, self._shards.coefficients(name, self.coefficients.effective(name)))

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def when_complete(parameter: Tensor) -> None:
            if not self._last_backward:
                if (offload := offload_of(parameter)) is not None:
                    offload.put_aside(parameter)
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
        gradient = _taken(parameter)
        if gradient is None:
            return
        gradient = local(gradient).to(self._vectors.dtype)
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
            for experts, taus, dc in self._vectors.reduced(name, base, gradient, by_row=self._by_row):
                dw = self._link.pull_back(w[experts], dc.to(w.device))
                self._adam.step(w, dw, state, experts, self._lr_factor)
                for tau, c in zip(taus, self._link.apply(w[experts]), strict=True):
                    self._merged.add(merged, tau, c)
        self._merged.end(name, merged)

    def _collect(self, name: str, gradient: Tensor) -> None:
        """Add this tensor's ⟨gradient, τ(i, j)⟩ to the gradient of its group's coefficients."""
        group = self.coefficients.groups[name]
        w = self.coefficients.w[group]
        dc = self._shards.whole(name, self._vectors.products(name, gradient, by_row=self._by_row).to(w.device), w)
        self._gradients[group] = self._gradients[group] + dc if group in self._gradients else dc

    def _drop_gradients(self) -> None:
        for parameter in self._parameters.values():
            _taken(parameter)


def _taken(parameter: Tensor) -> Tensor | None:
    """A parameter's gradient, which it has no more."""
    if (offload := offload_of(parameter)) is not None:
        return offload.gathered(parameter)
    gradient, parameter.grad = parameter.grad, None
    return gradient
