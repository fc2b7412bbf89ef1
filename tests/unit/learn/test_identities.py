"""What coefficients must mean, whatever was learned: task arithmetic, the base, an expert."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from toy import state, toy_batches, toy_experts, toy_loss, toy_model

from supermerge.assemble import merge
from supermerge.learn import learn


def _merged(init: float, link: str = "tanh", experts: int = 2) -> tuple[dict[str, torch.Tensor], dict, dict]:
    model = toy_model()
    base = state(model)
    tuned = toy_experts(base, experts)
    learned = learn(model, base, tuned, toy_batches(), toy_loss, steps=0, lr=0.1, link=link, init=init)
    return learned.state_dict(), base, tuned


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.9])
def test_atanh_of_a_scale_is_task_arithmetic(scale: float) -> None:
    merged, base, experts = _merged(scale)
    expected = merge(base, experts, "task_arithmetic", scale=scale)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("link", ["tanh", "identity", "clamp"])
def test_zero_is_the_base_bit_for_bit(link: str) -> None:
    merged, base, _ = _merged(0.0, link)
    assert all(torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("link", ["identity", "clamp", "softmax"])
def test_one_expert_with_coefficient_one_is_the_expert(link: str) -> None:
    merged, _, experts = _merged(1.0, link, experts=1)
    for name, tensor in experts["expert0"].items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)


def test_the_start_of_softmax_is_the_average() -> None:
    merged, base, experts = _merged(0.3, "softmax")
    expected = merge(base, experts, "linear")
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)
