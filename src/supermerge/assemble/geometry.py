"""How long the task vectors are and how they lie to each other, as a by-product of reading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from supermerge.methods import BLOCK


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add the inner products of `rows [k + 1, n]`, the base and the task vectors, to `total [k + 1, k + 1]` in fp64.

    Summed in fp32 inside blocks of fixed size and in fp64 over them, in order, so that the outcome does not depend on
    how the tensor was cut.
    """
    for start in range(0, rows.shape[1], BLOCK):
        block = rows[:, start : start + BLOCK]
        total += (block @ block.T).double()


@dataclass(frozen=True, slots=True)
class Geometry:
    """Inner products of the base and the task vectors per tensor: `grams[name]` is `[k + 1, k + 1]`, the base first."""

    experts: tuple[str, ...]
    grams: Mapping[str, Tensor]

    @property
    def gram(self) -> Tensor:
        """[k + 1, k + 1]: over the whole model."""
        return torch.stack(list(self.grams.values())).sum(0)

    @property
    def norms(self) -> list[float]:
        """‖τᵢ‖, [k]."""
        return self.gram.diagonal()[1:].sqrt().tolist()

    @property
    def relative_norms(self) -> list[float]:
        """‖τᵢ‖ / ‖θp‖, [k]; 0 for a base of zeros."""
        squares = self.gram.diagonal()
        return (squares[1:] / squares[0].clamp(min=torch.finfo(torch.float64).tiny)).sqrt().tolist()

    @property
    def cosines(self) -> list[list[float]]:
        """⟨τᵢ, τⱼ⟩ / ‖τᵢ‖‖τⱼ‖, [k][k]; 0 for a task vector of zeros."""
        inner = self.gram[1:, 1:]
        lengths = inner.diagonal().sqrt()
        scale = torch.outer(lengths, lengths)
        return torch.where(scale > 0, inner / scale.clamp(min=torch.finfo(torch.float64).tiny), 0.0).tolist()

    def tensor_norms(self, name: str) -> list[float]:
        """‖τᵢ‖ of one tensor, [k]."""
        return self.grams[name].diagonal()[1:].sqrt().tolist()
