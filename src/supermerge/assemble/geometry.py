"""How long the task vectors are and how they lie to each other, as a by-product of reading them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from supermerge.methods import BLOCK

_LEAST_LENGTH = 1e-154  # its square is still a number


class Products:
    """‖θp‖² and the inner products of the task vectors of one tensor, in fp64, added up piece by piece.

    Summed in fp32 inside blocks of fixed size and in fp64 over them, in order, so that the outcome does not depend on
    how the tensor was cut.
    """

    def __init__(self, k: int) -> None:
        self.base = 0.0
        self.taus = torch.zeros(k, k, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """One more piece: `rows [k + 1, n]`, the base and the task vectors."""
        whole = rows.shape[1] // BLOCK * BLOCK
        for part in (rows[:, :whole].unflatten(1, (-1, BLOCK)), rows[:, whole:].unsqueeze(1)):
            if part.numel():
                self.base += float(torch.linalg.vector_norm(part[0], dim=1).double().square().sum())
                taus = part[1:].transpose(0, 1)
                self.taus += torch.bmm(taus, taus.mT).double().sum(0)

    @property
    def finite(self) -> bool:
        """False where an element is NaN or infinite; also where products of large ones are."""
        return math.isfinite(self.base + float(self.taus.sum()))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Per tensor ‖θp‖² (`base`) and the inner products of the task vectors (`grams[name]`, `[k, k]`), in fp64."""

    experts: tuple[str, ...]
    base: Mapping[str, float]
    grams: Mapping[str, Tensor]

    @property
    def gram(self) -> Tensor:
        """[k, k]: over the whole model."""
        return torch.stack(list(self.grams.values())).sum(0)

    @property
    def norms(self) -> list[float]:
        """‖τᵢ‖, [k]."""
        return self.gram.diagonal().sqrt().tolist()

    @property
    def relative_norms(self) -> list[float]:
        """‖τᵢ‖ / ‖θp‖, [k]; enormous for a base of zeros, 0 where the task vector is zero too."""
        length = max(math.sqrt(sum(self.base.values())), _LEAST_LENGTH)
        return [norm / length for norm in self.norms]

    @property
    def cosines(self) -> list[list[float]]:
        """⟨τᵢ, τⱼ⟩ / ‖τᵢ‖‖τⱼ‖, [k][k]; 0 for a task vector of zeros."""
        inner = self.gram
        lengths = inner.diagonal().sqrt()
        scale = torch.outer(lengths, lengths)
        return torch.where(scale > 0, inner / scale.clamp(min=torch.finfo(torch.float64).tiny), 0.0).tolist()
