"""Where a tensor, or a piece of one, comes from: what a method may know besides the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

BLOCK = 65_536
"""Elements that share one random stream. Pieces of a tensor always start at a multiple of it."""


@dataclass(frozen=True, slots=True)
class Context:
    """The tensor being merged.

    `shape` is that of the whole tensor; `offset` is the flat position of the first element of the piece at hand, 0 for
    a whole tensor. Random numbers depend on (seed, method, expert name, tensor name) and the position, nothing else.
    """

    name: str
    shape: tuple[int, ...]
    experts: tuple[str, ...]
    seed: int = 0
    offset: int = 0

    def bernoulli(self, method: str, expert: int, p: float | Tensor, like: Tensor) -> Tensor:
        """1 with probability `p`, else 0, for every element of `like`; drawn for one method and expert (its index)."""
        first, count = self.offset // BLOCK, like.numel()
        draws = np.empty(count, dtype=np.float32)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            key = "\0".join((str(self.seed), method, self.experts[expert], self.name, str(first + start // BLOCK)))
            stream = np.random.PCG64(int.from_bytes(blake3(key.encode()).digest(length=16), "little"))
            np.random.Generator(stream).random(out=draws[start:stop], dtype=np.float32)
        wanted = p.cpu().contiguous().view(-1).numpy() if isinstance(p, Tensor) else p
        return torch.from_numpy((draws < wanted).astype(np.float32)).view(like.shape).to(like)
