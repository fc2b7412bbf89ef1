"""The engine of several processes, each with a part of a step's items and, where the model is sharded, of its rows.

The gradient of a step is a sum over its items, and ⟨gradient, τ⟩ a sum over rows: both are cut among the processes, and
what is left to add up are k numbers per tensor (or row), all of them in one all-reduce per step:

    ∂L/∂c(i, j) = Σ_processes Σ_items there ⟨∂L/∂θm(j), τ(i, j)⟩ of the rows there

FSDP has added up the gradients of all items before it hands out their rows, so the same sum is right for it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from supermerge.distributed import Peers
from supermerge.learn.adam import Adam
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.engine import Engine
from supermerge.learn.shards import Shards
from supermerge.learn.stepping import Item, Loss
from supermerge.learn.task_vectors import TaskVectors


class SharedEngine(Engine):
    """Steps the same coefficients in every process. All must be given the same items."""

    def __init__(
        self,
        parameters: dict[str, Tensor],
        vectors: TaskVectors,
        coefficients: Coefficients,
        adam: Adam,
        *,
        clip: float | None,
        shards: Shards,
        peers: Peers,
    ) -> None:
        super().__init__(parameters, vectors, coefficients, adam, clip=clip, shards=shards)
        self.peers = peers
        self._one_pass = False

    def step(self, items: Sequence[Item], model: nn.Module, loss: Loss, *, lr_factor: float = 1.0) -> list[float]:
        """See `Stepping.step`; every process learns all losses."""
        self._begin(lr_factor)
        own = self._backward_own(items, model, loss)
        self._reduce_rest()
        losses, gradients = self._summed(own)
        bad = next((place for place, value in enumerate(losses) if not math.isfinite(value)), None)
        if bad is not None:
            self._drop_gradients()
            return losses[: bad + 1]
        self._move(gradients)
        return losses

    def _backward_own(self, items: Sequence[Item], model: nn.Module, loss: Loss) -> list[float]:
        """Every n-th item; the losses by place, 0 for those of others.

        FSDP needs as many passes in every process, so those with fewer items repeat one, without weight.
        """
        losses, size = [0.0] * len(items), self.peers.size
        rounds = -(-len(items) // size)
        for turn in range(rounds):
            place = turn * size + self.peers.rank
            task, batch, weight = items[place] if place < len(items) else (*items[0][:2], 0.0)
            value = loss(model, task, batch)
            if place < len(items):
                losses[place] = float(value.detach())
            self._backward_of(value * weight, last=turn == rounds - 1)
        return losses

    def _summed(self, losses: list[float]) -> tuple[list[float], dict[str, Tensor]]:
        """Losses and gradients of all processes, in one all-reduce; of groups that have a gradient in any of them."""
        w = self.coefficients.w
        groups = list(dict.fromkeys(self.coefficients.groups[name] for name in self._parameters))
        mine = [self._gradients.get(group) for group in groups]
        terms = [torch.zeros_like(w[group]) if dc is None else dc for group, dc in zip(groups, mine, strict=True)]
        numbers = [*losses, *(float(dc is not None) for dc in mine)]
        flat = [torch.tensor(numbers, dtype=torch.float64), *(term.double().reshape(-1).cpu() for term in terms)]
        total = self.peers.sum(torch.cat(flat))
        head, *parts = total.split([len(numbers), *(term.numel() for term in terms)])
        found, present = head[: len(losses)].tolist(), head[len(losses) :].tolist()
        gradients = {
            group: part.view(w[group].shape).to(w[group])
            for group, part, there in zip(groups, parts, present, strict=True)
            if there
        }
        return found, gradients
