"""Exact order of magnitudes inside rows, quickly: plain numbers that carry their positions are sorted, not indices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supermerge.methods.context import BLOCK

Positions = npt.NDArray[np.int64]
Magnitudes = npt.NDArray[np.float32]
_BITS = 31
_MOST_BUCKET_BITS = 22
"""fp32 has 24 bits of mantissa: as many buckets are told apart with certainty."""
_REPAIRS = 8
_FEW = 1 / 16
"""Of all elements: as many neighbours may stand the wrong way round before sorting wider numbers is quicker."""
_FREE_BITS = 29
"""Mantissa bits that an fp64 copy of an fp32 number leaves free."""


def as_rows(tensor: Tensor) -> Tensor:
    """[rows, n]: the vectors along the last dimension; a scalar is one row of one."""
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor.reshape(1, 1)


def ranks(rows: Tensor) -> Tensor:
    """[rows, n] in fp32: 0 for the smallest magnitude of a row, n − 1 for the largest; of equals the earlier first.

    Rows are limited to 2^29 elements.
    """
    return by_rank(rows, torch.arange(rows.shape[1], dtype=torch.float32))


def by_rank(rows: Tensor, values: Tensor) -> Tensor:
    """[rows, n] in fp32: for every element of `rows` that of `values [n]` which its rank in the row says."""
    count, n = rows.shape
    out = torch.empty(count, n, dtype=torch.float32)
    step = max(1, BLOCK // max(1, n))
    for start in range(0, count, step):
        part = rows[start : start + step].to("cpu", torch.float32).abs()
        out[start : start + step].scatter_(1, _order(part), values.to("cpu", torch.float32).expand(len(part), n))
    return out.to(rows)


def _order(magnitudes: Tensor) -> Tensor:
    """[rows, n]: the positions in a row from the smallest magnitude to the largest; of equals the earlier first.

    Every row is cut into buckets of equal width, and (bucket, position) sorted as one 32-bit integer. Neighbours of the
    same bucket that stand the wrong way round, few unless rows are long or have outliers, are then swapped.
    """
    n = magnitudes.shape[1]
    bits = max(1, (n - 1).bit_length())
    width = min(_BITS - bits, _MOST_BUCKET_BITS)
    if width < bits:  # fewer buckets than elements
        return _order_of_long(magnitudes)
    scale = ((1 << width) - 1) / magnitudes.amax(1, keepdim=True).clamp(min=1e-30)
    keys = (magnitudes * scale).to(torch.int32).bitwise_left_shift_(bits)
    keys |= torch.arange(n, dtype=torch.int32)
    ordered = keys.numpy()
    ordered.sort(axis=1)
    order = keys.long().bitwise_and_((1 << bits) - 1)
    close = (ordered[:, 1:] ^ ordered[:, :-1]) < 1 << bits  # neighbours in one bucket
    few = _FEW * magnitudes.numel()
    if np.count_nonzero(close) > few:  # many equal ones, or an outlier
        values = magnitudes.gather(1, order)
        wrong = int(torch.count_nonzero(values[:, 1:] < values[:, :-1]))
        if not wrong:
            return order
        if wrong > few:
            return _order_of_long(magnitudes)
    repaired = _repair(order.numpy(), magnitudes.numpy(), np.flatnonzero(close))
    return order if repaired else _order_of_long(magnitudes)


def _repair(order: Positions, magnitudes: Magnitudes, close: Positions) -> bool:
    """Swap the neighbours, at `close` of [rows, n − 1], that stand the wrong way round; False where many do."""
    if not len(close):
        return True
    n = order.shape[1]
    row = close // (n - 1)
    first, start = close + row, row * n
    flat, values = order.reshape(-1), magnitudes.reshape(-1)
    for _ in range(_REPAIRS):
        wrong = values[start + flat[first]] > values[start + flat[first + 1]]
        found = first[wrong]
        if not len(found):
            return True
        found = found[np.diff(found, prepend=found[0] - 2) > 1]  # of overlapping pairs the first
        flat[found], flat[found + 1] = flat[found + 1], flat[found]
    return False


def _order_of_long(magnitudes: Tensor) -> Tensor:
    """`_order` for any row: positions ride in the free mantissa bits of fp64 copies."""
    keys, mask = magnitudes.double().numpy().view(np.int64), (1 << _FREE_BITS) - 1
    keys |= np.arange(keys.shape[1])
    keys.view(np.float64).sort(axis=1)
    return torch.from_numpy(keys & mask)
