"""Which examples make up the batch of a step: shuffled epochs, a function of the seed, the task and the step alone."""

from __future__ import annotations

import torch
from blake3 import blake3


def batch_indices(count: int, size: int, step: int, *, seed: int, key: str) -> list[int]:
    """Indices of the `size` examples (of `count`) that step `step` reads.

    Epochs are permutations laid end to end, so a batch may run from one into the next; a batch never holds more than
    `count` examples. `key` names the stream (the task), so that no other task's size changes this one's draws.
    """
    size = min(size, count)
    positions = range(step * size, (step + 1) * size)
    epochs = {epoch: _permutation(count, epoch, seed, key) for epoch in {position // count for position in positions}}
    return [epochs[position // count][position % count] for position in positions]


def _permutation(count: int, epoch: int, seed: int, key: str) -> list[int]:
    digest = blake3(f"{seed}/{key}/{epoch}".encode()).digest(length=8)
    generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
    return torch.randperm(count, generator=generator).tolist()
