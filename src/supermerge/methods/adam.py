"""Adam on a function given by its gradient, for methods that optimise in weight space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def adam(start: Tensor, gradient: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    """`start` after `steps` of Adam (0.9, 0.999, 1e-8) at the constant rate `lr`."""
    x = start.clone()
    mean, square = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(1, steps + 1):
        g = gradient(x)
        mean.mul_(0.9).add_(0.1 * g)
        square.mul_(0.999).add_(0.001 * (g * g))
        x -= lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    return x
