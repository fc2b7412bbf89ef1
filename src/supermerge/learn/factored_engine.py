"""The engine for adapters: the base is frozen and shared, and every expert is what its adapter's files hold.

With τ(i, j) = sᵢ Bᵢ Aᵢ a layer of the merged model is

    y = W₀ x + Σᵢ c(i, j) · sᵢ Bᵢ (Aᵢ x),    c = link(w)

(for IA3, ℓ − 1 scales what goes in or comes out), in which only the c are unknown: an ordinary backward pass gives
their gradients, k numbers per tensor. No dense task vector, no dense gradient and no merged tensor is ever made, so
memory is base, adapters and activations. When learning ends, the merged tensors are written into the model once. What
adapters change in other ways (biases, whole modules, DoRA) is learned as dense task vectors, streamed as in `engine`.

Source of the merge and its link: SuperMerge, arXiv 2412.10416. LoRA: arXiv 2106.09685. (IA)³: arXiv 2205.05638.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from supermerge.learn.adam import Adam
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.factored import Factored
from supermerge.learn.factored_forward import FactoredForward
from supermerge.learn.merged import Merged
from supermerge.learn.stepping import Item, Loss, Stepping
from supermerge.learn.task_vectors import TaskVectors
from supermerge.offload import write_rows


class FactoredEngine(Stepping):
    """Makes a model compute as the merge that the coefficients describe, and steps the coefficients.

    `parameters` are the model's own that any expert changes: those in `factored` hold the base's values until the end,
    the others are written as in `Engine`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        factored: Mapping[str, Factored],
        vectors: TaskVectors,
        coefficients: Coefficients,
        adam: Adam,
        *,
        clip: float | None = None,
    ) -> None:
        super().__init__(coefficients, adam, clip)
        self._weights = {name: parameters[name] for name in factored}
        self._dense = {name: tensor for name, tensor in parameters.items() if name not in factored}
        self._factored = factored
        self._vectors = vectors
        self._merged = Merged(self._dense, vectors)
        self._leaves: dict[str, Tensor] = {}
        self._refresh()
        self._forward = FactoredForward(self._weights, factored, self._leaf)

    def __enter__(self) -> Self:
        self._forward.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._forward.__exit__(None, None, None)
        self._drop_gradients()
        self._write()

    def step(self, items: Sequence[Item], model: nn.Module, loss: Loss, *, lr_factor: float = 1.0) -> list[float]:
        """See `Stepping.step`; the coefficients move after the last backward pass."""
        losses = self._backward(items, model, loss)
        if not all(map(math.isfinite, losses)):
            return losses
        gradients = {group: leaf.grad for group, leaf in self._leaves.items() if leaf.grad is not None}
        for name, parameter in self._dense.items():
            if parameter.grad is not None:
                group = self.coefficients.groups[name]
                gradient, parameter.grad = parameter.grad.to(self._vectors.dtype), None
                dc = self._vectors.products(name, gradient, by_row=self._by_row).to(self.coefficients.w[group].device)
                gradients[group] = gradients[group] + dc if group in gradients else dc
        self._step_groups(gradients, lr_factor)
        self._refresh()
        for name in self._dense:
            if self.coefficients.groups[name] in gradients:
                self._merged.write(name, self.coefficients.effective(name))
        return losses

    def rebuild(self) -> None:
        """Use the coefficients as they are; the tensors that are no factors are written."""
        self._refresh()
        for name in self._dense:
            self._merged.write(name, self.coefficients.effective(name))

    def _leaf(self, name: str) -> Tensor:
        return self._leaves[self.coefficients.groups[name]].to(self._weights[name].device)

    def _refresh(self) -> None:
        """c = link(w) of every group with factors, as leaves of the graphs to come."""
        for group in {self.coefficients.groups[name] for name in self._weights}:
            self._leaves[group] = self._link.apply(self.coefficients.w[group]).detach().requires_grad_()

    @torch.no_grad()
    def _write(self) -> None:
        """Write the merge of the factors into the model, in the arithmetic's dtype and a block of rows at a time."""
        for name, weight in self._weights.items():
            c, factored = self.coefficients.effective(name).to(weight.device), self._factored[name]
            for rows in factored.blocks():
                base = self._vectors.base(name, rows).to(weight.device)
                write_rows(weight, rows, factored.whole(base, c, rows))

    def _drop_gradients(self) -> None:
        for tensor in (*self._dense.values(), *self._leaves.values()):
            tensor.grad = None
