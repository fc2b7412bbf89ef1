"""Numbers of b bits side by side in bytes: eight of them fill b bytes, the first in the lowest bits."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 8
"""Numbers that end where a byte ends, whatever b is."""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` numbers take: the last group is filled up."""
    return -(-count // GROUP) * bits


def pack(numbers: Tensor, bits: int) -> Tensor:
    """uint8 `[n]` below 2^b, as uint8 `[⌈n/8⌉ · b]`."""
    if bits == 8:
        padding = -len(numbers) % GROUP
        return torch.nn.functional.pad(numbers, (0, padding))
    groups = torch.nn.functional.pad(numbers, (0, -len(numbers) % GROUP)).view(-1, GROUP).to(torch.int64)
    words = (groups << (bits * torch.arange(GROUP))).sum(dim=1)
    return ((words[:, None] >> (8 * torch.arange(bits))) & 0xFF).to(torch.uint8).reshape(-1)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """What was packed, `[8 · len / b]` with what fills the last group; int32, or uint8 for whole bytes."""
    if bits == 8:
        return packed
    places = packed.view(-1, bits).to(torch.int32)
    words = places[:, 0].clone()
    for i in range(1, bits):
        words |= places[:, i] << (8 * i)
    # With four bits the last number reaches the sign, whose copies the mask takes away.
    numbers = (words[:, None] >> (bits * torch.arange(GROUP, dtype=torch.int32))) & ((1 << bits) - 1)
    return numbers.reshape(-1)
