"""Which calls ask about a tensor without looking at its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# What asks about a tensor and not for its values.
_ABOUT = frozenset(
    {
        torch.Tensor.size,
        torch.Tensor.dim,
        torch.Tensor.numel,
        torch.Tensor.nelement,
        torch.Tensor.element_size,
        torch.Tensor.stride,
        torch.Tensor.is_contiguous,
        torch.Tensor.is_floating_point,
        torch.Tensor.is_complex,
        torch.Tensor.__hash__,
        torch.Tensor.requires_grad_,
        torch.Tensor.untyped_storage,
        torch.Tensor.__len__,
        torch.is_floating_point,
        torch.is_complex,
        torch.numel,
    }
)
# Attributes that are values.
_VALUES = frozenset(getattr(torch.Tensor, name).__get__ for name in ("T", "mT", "H", "mH", "data", "real"))


def asks_about(func: Callable[..., Any]) -> bool:
    """Whether `func` only tells what a tensor is (its shape, its type, and the like), or sets an attribute of it."""
    name = getattr(func, "__name__", "")
    return func in _ABOUT or name == "__set__" or (name == "__get__" and func not in _VALUES)
