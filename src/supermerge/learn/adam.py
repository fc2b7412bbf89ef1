"""Adam on slices: the optimiser's state lies beside each coefficient, so that any expert can be stepped on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class AdamState:
    """First and second moments of one group's coefficients (`[k]` or `[k, rows]`), and how many steps it took."""

    mean: Tensor
    square: Tensor
    steps: int = 0

    @classmethod
    def like(cls, w: Tensor) -> AdamState:
        return cls(torch.zeros_like(w), torch.zeros_like(w))

    def copy(self) -> AdamState:
        return AdamState(self.mean.clone(), self.square.clone(), self.steps)


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980) without weight decay: the arithmetic of `torch.optim.Adam`.

    m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  w ← w − lr · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def step(self, w: Tensor, gradient: Tensor, state: AdamState, experts: slice, lr_factor: float = 1.0) -> None:
        """Step the coefficients of `experts` in place; `gradient` has the shape of `w[experts]`.

        `state.steps` counts this step already: whoever steps a group counts once, then steps its experts in turn.
        """
        mean, square = state.mean[experts], state.square[experts]
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        step_size = self.lr * lr_factor / (1 - self.beta1**state.steps)
        denominator = square.sqrt().div_(math.sqrt(1 - self.beta2**state.steps)).add_(self.eps)
        w[experts].addcdiv_(mean, denominator, value=-step_size)
