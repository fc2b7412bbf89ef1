"""A model whose weights lie in a file learns the same bits as one in memory."""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from architectures import ARCHITECTURES, build, make_experts, state_of
from supermerge.errors import UsageError
from supermerge.learn import EarlyStopping, Learned, learn
from supermerge.offload import Offload, offload_of, offloaded


def learned(architecture: str, residency: Any, **options: Any) -> tuple[Learned, nn.Module]:
    model, loss, batches = build(architecture)
    model = model.float()
    batches = [batch.float() if batch.is_floating_point() else batch for batch in batches]
    base = state_of(model)
    items = cycle([[("a", batches[0]), ("b", batches[1], 0.5)], [("b", batches[1])]])
    settings = {"steps": 5, "lr": 0.05, **options}
    return learn(model, base, make_experts(base), items, loss, residency=residency, **settings), model


def bits(found: Learned, model: nn.Module) -> dict[str, bytes]:
    tensors = {**found.coefficients.w, **found.state_dict(), **dict(model.named_parameters())}
    return {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("granularity", ["tensor", "row", "layer"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_bits_as_in_memory(architecture: str, granularity: str) -> None:
    offload, disk = (learned(architecture, where, granularity=granularity) for where in ("offload", "disk"))
    assert bits(*offload) == bits(*disk)
    assert [record.loss for record in offload[0].history] == [record.loss for record in disk[0].history]
    assert all(offload_of(parameter) is None for parameter in offload[1].parameters())


def test_held_back_losses_and_the_best_of_them() -> None:
    def held_back(model: nn.Module) -> float:
        output: Any = model(input_ids=torch.arange(12).view(2, 6) + 3)
        return float(output.logits.square().mean())

    stopping = EarlyStopping(held_back, patience=2)
    offload, disk = (learned("llama", where, early_stopping=stopping) for where in ("offload", "disk"))
    assert [record.held_back for record in offload[0].history] == [record.held_back for record in disk[0].history]
    assert bits(*offload) == bits(*disk)


def test_clipping_steps_after_the_backward_pass() -> None:
    offload, disk = (learned("bert", where, clip=0.01) for where in ("offload", "disk"))
    assert bits(*offload) == bits(*disk)


def _bytes(tensor: Tensor | None) -> bytes:
    assert tensor is not None
    return tensor.numpy().tobytes()


def test_weights_are_in_memory_only_while_they_are_used() -> None:
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    expected = layers(x).square().sum()
    expected.backward()
    gradients = [parameter.grad for parameter in layers.parameters()]
    layers.zero_grad()
    most = 0

    def held() -> int:
        return sum(parameter.untyped_storage().nbytes() for parameter in layers.parameters())

    def seen(*_: Any) -> None:
        nonlocal most
        most = max(most, held())

    for layer in layers:
        layer.register_forward_hook(seen)
    with offloaded(layers):
        assert held() == 0
        loss = layers(x).square().sum()
        assert most == 64 * 64 * 4 + 64 * 4
        loss.backward()
        assert torch.equal(loss, expected)
    assert held() == 8 * (64 * 64 + 64) * 4
    assert [_bytes(p.grad) for p in layers.parameters()] == [_bytes(gradient) for gradient in gradients]


def test_views_lists_and_attributes() -> None:
    weight = nn.Parameter(torch.arange(6.0).view(2, 3))
    offload = Offload()
    offload.take(weight)
    with offload:
        assert (weight.shape, weight.dtype, weight.untyped_storage().nbytes()) == ((2, 3), torch.float32, 0)
        turned = weight.T
        assert torch.equal(torch.ones(1, 3) @ turned, torch.tensor([[3.0, 12.0]]))
        assert torch.equal(torch.cat([weight, weight[1:]])[:, 0], torch.tensor([0.0, 3.0, 3.0]))
        assert torch.equal(weight.data[1], torch.tensor([3.0, 4.0, 5.0]))
    offload.store(weight, torch.tensor([9.0, 8.0]), start=4)
    assert torch.equal(offload.fetch(weight), torch.tensor([[0.0, 1.0, 2.0], [3.0, 9.0, 8.0]]))
    offload.bring_back()
    assert torch.equal(weight[1], torch.tensor([3.0, 9.0, 8.0]))


def test_gradients_wait_in_the_order_of_arrival() -> None:
    weight = nn.Parameter(torch.zeros(2))
    offload = Offload()
    offload.take(weight)
    parts: list[Tensor] = [torch.tensor([1.0, 1e8]), torch.tensor([2.0, 1.0]), torch.tensor([4.0, -1e8])]
    for part in parts:
        weight.grad = part.clone()
        offload.put_aside(weight)
        assert weight.grad is None
    weight.grad = torch.tensor([8.0, 3.0])
    found = offload.gathered(weight)
    assert found is not None
    assert found.tolist() == (parts[0] + parts[1] + parts[2] + torch.tensor([8.0, 3.0])).tolist()
    assert offload.gathered(weight) is None


def test_half_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="residency offload needs precision fp32"):
        learned("bert", "offload", precision="bf16")
