"""One tensor of all experts as adapters have it, and how a model computes with its merge without making it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from supermerge.checkpoint import TensorInfo
from supermerge.checkpoint.adapters import LowRank, Rescaled
from supermerge.learn.division import Part
from supermerge.learn.merged import require_finite
from supermerge.learn.task_vectors import row_blocks


@dataclass(frozen=True, slots=True)
class Factored:
    """θm = G ⊙ W + Σᵢ cᵢ Lᵢ Rᵢ with gains G = 1 + Σᵢ cᵢ (ℓᵢ − 1), for W [rows, columns] of the base.

    `left` [rows, Σr] and `right` [Σr, columns] are the factors of all experts side by side, `owner` [Σr] says whose
    each of them is. `scales` [k, rows or columns] are ℓ − 1, zero for experts without; `of_rows` says which.
    Coefficients `c` are [k], or [k, rows]. What follows is differentiable in `c` and in the inputs.
    """

    left: Tensor
    right: Tensor
    owner: Tensor
    scales: Tensor | None
    of_rows: bool

    @classmethod
    def read(cls, info: TensorInfo, parts: Sequence[Part], experts: Sequence[str], like: Tensor) -> Self:
        """Read what every expert has of a tensor, in the dtype and on the device of `like`.

        Raises CheckpointError for NaN or Inf.
        """
        rows, columns = info.shape
        lefts, rights, owner = [torch.empty(rows, 0)], [torch.empty(0, columns)], []
        scales = None
        of_rows = True
        for i, part in enumerate(parts):
            if isinstance(part, LowRank):
                left, right = part.factors()
                lefts.append(left.to(like.dtype))
                rights.append(right.to(like.dtype))
                owner += [i] * part.rank
            elif isinstance(part, Rescaled):
                source, stored = part.scales
                of_rows = part.by_row
                if scales is None:
                    scales = torch.zeros(len(parts), rows if of_rows else columns, dtype=like.dtype)
                scales[i] = source.read(stored).to(torch.float64).flatten() - 1
            found = (*lefts[-1:], *rights[-1:], *([] if scales is None else [scales[i]]))
            for tensor in found:
                require_finite(info.name, f"expert {experts[i]}", tensor)
        at = like.device
        left, right = (torch.cat(many, dim).to(device=at, dtype=like.dtype) for many, dim in ((lefts, 1), (rights, 0)))
        return cls(left, right, torch.tensor(owner).to(at), None if scales is None else scales.to(at), of_rows)

    def linear(self, x: Tensor, weight: Tensor, c: Tensor) -> Tensor:
        """x θmᵀ: x is [..., columns]."""
        y = functional.linear(x if self.of_rows else self._gained(x, c), weight)
        y = self._gained(y, c) if self.of_rows else y
        if not len(self.owner):
            return y
        z = functional.linear(x, self.right)
        if c.dim() == 1:
            return y + functional.linear(self._weighted(z, c), self.left)
        return y + functional.linear(z, self._weighted(self.left, c))

    def matmul(self, x: Tensor, weight: Tensor, c: Tensor) -> Tensor:
        """x θm: x is [..., rows]."""
        y = (self._gained(x, c) if self.of_rows else x) @ weight
        y = y if self.of_rows else self._gained(y, c)
        if not len(self.owner):
            return y
        z = self._weighted(x @ self.left, c) if c.dim() == 1 else x @ self._weighted(self.left, c)
        return y + z @ self.right

    def embedding(self, ids: Tensor, weight: Tensor, c: Tensor) -> Tensor:
        """Rows `ids` of θm: [..., columns]."""
        y = functional.embedding(ids, weight)
        if self.scales is not None:
            gains = self._gains(c)
            y = (y * (gains[ids][..., None] if self.of_rows else gains)).to(y.dtype)
        if not len(self.owner):
            return y
        return y + self._weighted(self.left[ids], c if c.dim() == 1 else c[:, ids]) @ self.right

    def whole(self, weight: Tensor, c: Tensor, rows: slice = slice(None)) -> Tensor:
        """θm itself, or some of its rows: `weight` holds those of W."""
        c = c if c.dim() == 1 else c[:, rows]
        merged = weight
        if self.scales is not None:
            scales = self.scales[:, rows] if self.of_rows else self.scales
            gains = 1 + _summed(c, scales)
            merged = (weight * (gains[:, None] if self.of_rows else gains)).to(weight.dtype)
        return merged + self._weighted(self.left[rows], c) @ self.right if len(self.owner) else merged

    def blocks(self) -> Iterator[slice]:
        """Ranges of rows of which a dense tensor is small."""
        return row_blocks((self.left.shape[0], self.right.shape[1]))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in (self.left, self.right, self.owner, self.scales) if tensor is not None)

    def _weighted(self, z: Tensor, c: Tensor) -> Tensor:
        """z [..., Σr] times everyone's coefficient: c is [k], or [k, ...]."""
        return (z * c.index_select(0, self.owner).movedim(0, -1)).to(z.dtype)

    def _gained(self, x: Tensor, c: Tensor) -> Tensor:
        return x if self.scales is None else (x * self._gains(c)).to(x.dtype)

    def _gains(self, c: Tensor) -> Tensor:
        assert self.scales is not None
        return 1 + _summed(c, self.scales)


def _summed(c: Tensor, scales: Tensor) -> Tensor:
    """Σᵢ cᵢ (ℓᵢ − 1), c being [k] or as `scales` [k, n]."""
    return ((c if c.dim() > 1 else c[:, None]) * scales).sum(0)
