"""Exact order of magnitudes inside rows, quickly: positions are sorted by counting 16-bit numbers, not by comparing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supermerge.methods.context import BLOCK

Positions = npt.NDArray[np.int64]
Magnitudes = npt.NDArray[np.float32]
_BUCKETS = 1 << 16
_REPAIRS = 8
_FEW = 1 / 16
"""Of all elements: as many neighbours may stand the wrong way round before sorting by all 32 bits is quicker."""


def as_rows(tensor: Tensor) -> Tensor:
    """[rows, n]: the vectors along the last dimension; a scalar is one row of one."""
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor.reshape(1, 1)


def ranks(rows: Tensor) -> Tensor:
    """[rows, n] in fp32: 0 for the smallest magnitude of a row, n − 1 for the largest; of equals the earlier first."""
    return by_rank(rows, torch.arange(rows.shape[1], dtype=torch.float32))


def by_rank(rows: Tensor, values: Tensor) -> Tensor:
    """[rows, n] in fp32: for every element of `rows` that of `values [n]` which its rank in the row says."""
    count, n = rows.shape
    out = torch.empty(count, n, dtype=torch.float32)
    step = max(1, BLOCK // max(1, n))
    for start in range(0, count, step):
        part = rows[start : start + step].to("cpu", torch.float32).abs()
        out[start : start + step].scatter_(1, _order(part), values.to("cpu", torch.float32).expand(len(part), n))
    return out.to(device=rows.device, dtype=rows.dtype)


def _order(magnitudes: Tensor) -> Tensor:
    """[rows, n]: the positions in a row from the smallest magnitude to the largest; of equals the earlier first.

    Every row is cut into buckets of equal width, and positions are sorted by bucket. Neighbours of the same bucket that
    stand the wrong way round, few unless rows are long or have outliers, are then swapped.
    """
    scale = (_BUCKETS - 1) / magnitudes.amax(1, keepdim=True).clamp(min=1e-30)
    order = _sorted_by(magnitudes * scale)
    return order if _repair(order.numpy(), magnitudes.gather(1, order).numpy()) else _order_by_bits(magnitudes)


def _sorted_by(keys: Tensor) -> Tensor:
    """[rows, n]: the positions in a row in the order of `keys`, of whole numbers their lower 16 bits, of others what is
    before the point; of equals the earlier first.
    """
    # NumPy sorts numbers of 16 bits by counting them, if it must keep the order of equal ones.
    return torch.from_numpy(keys.to(torch.uint16).numpy().argsort(axis=1, kind="stable"))


def _repair(order: Positions, values: Magnitudes) -> bool:
    """Swap neighbours, in both of [rows, n], until none stands the wrong way round; False where many do."""
    flat_order, flat, n = order.reshape(-1), values.reshape(-1), order.shape[1]
    for _ in range(_REPAIRS):
        falls = flat[1:] < flat[:-1]
        falls[n - 1 :: n] = False  # from one row to the next
        falls[1:] &= ~falls[:-1]
        first = np.flatnonzero(falls)
        if not len(first):
            return True
        if len(first) > _FEW * len(flat):  # an outlier, or long rows
            return False
        for numbers in (flat_order, flat):
            numbers[first], numbers[first + 1] = numbers[first + 1], numbers[first]
    return False


def _order_by_bits(magnitudes: Tensor) -> Tensor:
    """`_order` for any row: by the lower half of the numbers' bits, then by the upper one, which keeps that order."""
    bits = magnitudes.view(torch.int32)
    order = _sorted_by(bits)
    return order.gather(1, _sorted_by((bits >> 16).gather(1, order)))
