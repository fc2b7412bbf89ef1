"""A toy with two tasks that share one layer and have another each: every path of the engine in microseconds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(3, 4)
        self.left = nn.Linear(4, 2)
        self.right = nn.Linear(4, 2)
        self.register_buffer("offset", torch.zeros(4))
        self.register_buffer("count", torch.tensor(7))

    def forward(self, x: Tensor, task: str) -> Tensor:
        hidden = torch.tanh(self.shared(x) + self.offset)
        return (self.left if task == "left" else self.right)(hidden)


def toy_loss(model: nn.Module, task: str, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return nn.functional.cross_entropy(model(x, task), y)


def toy_model() -> Toy:
    torch.manual_seed(0)
    return Toy()


def toy_experts(base: dict[str, Tensor], count: int = 2) -> dict[str, dict[str, Tensor]]:
    experts = {}
    for i in range(count):
        generator = torch.Generator().manual_seed(i + 1)
        experts[f"expert{i}"] = {
            name: tensor + 0.5 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in base.items()
        }
    return experts


def toy_batch(task: str, seed: int = 0) -> tuple[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, generator=generator)
    return task, (x, (x.sum(1) > 0).long())


def toy_batches() -> Iterator[list[tuple[str, tuple[Tensor, Tensor]]]]:
    """Endless steps on both tasks, each step with other examples."""
    step = 0
    while True:
        yield [toy_batch("left", 2 * step), toy_batch("right", 2 * step + 1)]
        step += 1


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
