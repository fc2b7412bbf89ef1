"""The streaming engine against plain autograd, for every link, granularity and family of models."""

from __future__ import annotations

import sys
from itertools import repeat
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from reference import LINKS, learn_by_autograd

from architectures import ARCHITECTURES, build, make_experts, state_of
from supermerge.learn import Coefficients, learn

STEPS, LR = 20, 0.02


def _floating(base: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in base.items() if t.is_floating_point()}


GRANULARITIES = ("model", "layer", "module", "tensor", "row")
GRID = [
    # Every pair on one family and the two paths of the engine on all; the rest of the grid takes minutes.
    pytest.param(architecture, link, granularity, marks=() if quick else pytest.mark.slow)
    for architecture in ARCHITECTURES
    for link in LINKS
    for granularity in GRANULARITIES
    for quick in [architecture == "bert" or (link, granularity) in {("tanh", "tensor"), ("softmax", "layer")}]
]


@pytest.mark.parametrize(("architecture", "link", "granularity"), GRID)
def test_equals_autograd(architecture: str, link: str, granularity: str) -> None:
    model, loss, batches = build(architecture)
    base = state_of(model)
    experts = make_experts(base)
    start = Coefficients.start(
        experts, _floating(base), link=link, granularity=granularity, value=0.3, dtype=torch.float64
    )
    expected_w, expected = learn_by_autograd(
        model, base, experts, batches, loss, start.w, start.groups, link=link, steps=STEPS, lr=LR
    )
    items = repeat([("a", batches[0]), ("b", batches[1])])
    learned = learn(model, base, experts, items, loss, steps=STEPS, lr=LR, link=link, granularity=granularity)

    moved = max((learned.coefficients.w[g] - start.w[g]).abs().max().item() for g in start.w)
    assert moved > LR
    for group, w in expected_w.items():
        torch.testing.assert_close(learned.coefficients.w[group], w, rtol=0, atol=1e-8)
    merged = learned.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-8)
