"""Where a tensor, or a piece of one, comes from: what a method may know besides the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

BLOCK = 65_536
"""Elements that share one random stream."""
PART = BLOCK // 4
"""Pieces of a tensor start at multiples of it; fp64 copies of so many elements, of a few experts, stay in the cache."""


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
        wanted = p.cpu().reshape(-1) if isinstance(p, Tensor) else p
        kept = torch.empty(like.numel(), dtype=torch.float32)
        done = 0
        while done < len(kept):
            block, inside = divmod(self.offset + done, BLOCK)
            count = min(BLOCK - inside, len(kept) - done)
            key = "\0".join((str(self.seed), method, self.experts[expert], self.name, str(block)))
            stream = np.random.PCG64(int.from_bytes(blake3(key.encode()).digest(length=16), "little"))
            # A step of the stream gives 64 bits: two numbers of 24 bits, as `Generator.random` would make them, but
            # that takes half as long again.
            steps = -(-(inside % 2 + count) // 2)
            raw = stream.advance(inside // 2).random_raw(steps).view(np.uint32)[inside % 2 :][:count]
            part = slice(done, done + count)
            if isinstance(wanted, Tensor):
                upper = torch.from_numpy(np.right_shift(raw, 8, out=raw).view(np.int32))
                kept[part].copy_(upper).mul_(2**-24).lt_(wanted[part])
            else:
                # r · 2⁻²⁴ < p, for the upper 24 bits r, without making numbers of them.
                kept.numpy()[part] = raw < math.ceil(float(np.float32(wanted)) * 2**24) << 8
            done += count
        return kept.view(like.shape).to(like)
