"""Refuses NaN and infinity where they enter."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.errors import CheckpointError

_DAMAGED = "The checkpoint is damaged or its training diverged: use an earlier one."


def require_finite(tensor: Tensor, *, name: str, label: str, hint: str = _DAMAGED) -> None:
    """Raise CheckpointError, naming the tensor and its first bad element, unless every element is finite.

    The usual case costs one sum: a sum is finite only if no term is NaN or infinite. Only when it is not are the
    elements themselves looked at, since large finite terms may overflow the sum.
    """
    if not tensor.dtype.is_floating_point or tensor.numel() == 0:
        return
    if tensor.dtype.itemsize == 1:  # fp8 has no arithmetic of its own
        tensor = tensor.to(torch.float32)
    if bool(torch.isfinite(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)))):
        return
    bad = ~torch.isfinite(tensor)
    count = int(bad.sum())
    if count:
        where = [int(i) for i in bad.nonzero()[0]]
        value = float(tensor[tuple(where)])
        raise CheckpointError(
            f"{label}: tensor {name!r} has {count} values that are NaN or infinite, the first, {value}, at {where}",
            hint=hint,
        )
