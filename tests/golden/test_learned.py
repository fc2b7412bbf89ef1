"""AdaMerging in numbers worked out by hand: task-wise, layer-wise, and on TIES' task vectors (++)."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermerge.learn import learn
from supermerge.learn.basis import Basis
from supermerge.learn.objectives import entropy
from supermerge.methods import Context, get
from supermerge.resolve import settings_of


class Two(nn.Module):
    """Logits (a + b, 0) for the input 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self) -> Tensor:
        return torch.stack([self.a + self.b, torch.zeros(1)], dim=-1)


BASE = {"a": torch.zeros(1), "b": torch.zeros(1)}
EXPERTS = {
    "one": {"a": torch.tensor([2.0]), "b": torch.tensor([-3.0])},
    "other": {"a": torch.tensor([-0.5]), "b": torch.tensor([0.25])},
}


def after_one_step(name: str, **params: Any) -> dict[str, list[float]]:
    """The coefficients (of "one", of "other") by tensor, after one step on one input."""
    settings = settings_of(get(name), params)
    assert settings is not None
    learned = learn(
        Two(),
        BASE,
        EXPERTS,
        repeat(("task", None)),
        lambda model, task, batch: entropy(model()),
        steps=1,
        lr=settings.lr,
        link=settings.link,
        granularity=settings.granularity,
        init=float(settings.init),
    )
    return {tensor: learned.coefficients.effective(tensor).tolist() for tensor in BASE}


def test_layer_wise() -> None:
    # z = 0.3 (2 − 0.5) + 0.3 (−3 + 0.25) = −0.375. With p = σ(z) the entropy falls with |z|: dH/dz = −z p (1 − p) > 0,
    # so z must fall: a of "one" (τ = 2) falls, b of "one" (−3) rises, and so on. Adam's first step is lr = 0.001.
    found = after_one_step("adamerging")
    assert found["a"] == pytest.approx([0.299, 0.301], abs=1e-6)
    assert found["b"] == pytest.approx([0.301, 0.299], abs=1e-6)


def test_task_wise() -> None:
    # ∂z/∂λ of "one" is 2 − 3 = −1, of "other" −0.5 + 0.25 = −0.25: both rise.
    found = after_one_step("adamerging", granularity="model")
    assert found["a"] == found["b"] == pytest.approx([0.301, 0.301], abs=1e-6)


def test_a_coefficient_beyond_the_clamp_stays() -> None:
    found = after_one_step("adamerging", init=1.0, lr=0.5)
    # 1 is the bound: a of "other" and b of "one" rise past it, and are cut there.
    assert found["a"] == pytest.approx([0.5, 1.0], abs=1e-5)
    assert found["b"] == pytest.approx([1.0, 0.5], abs=1e-5)


def test_plus_plus_learns_on_the_trimmed_and_agreeing_parts() -> None:
    settings = settings_of(get("adamerging"), {"on": "ties"})
    assert settings is not None
    basis = Basis.of(settings, ["one", "other"])
    assert basis.init == {"one": 0.3, "other": 0.3}
    taus = torch.tensor(
        [
            [9.0, -8.0, 0.5, 0.1, 0.2, 0.3, 0.4, 0.3, 0.2, 0.1],
            [-7.0, -6.0, 0.4, 0.3, 0.2, 0.1, 0.2, 0.3, 5.0, 0.1],
        ]
    )
    # TIES keeps int(0.2 · 10) + 1 = 3 of ten: 9, −8, 0.5 and −7, −6, 5. The sums elect +, −, +, … +.
    expected = torch.tensor(
        [
            [9.0, -8.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, -6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0],
        ]
    )
    assert basis.on is not None
    context = Context("weight", (10,), ("one", "other"))
    vectors = basis.on.processed(torch.zeros(10), taus, context, basis.on.surveyed(torch.zeros(10), taus, context))
    assert torch.equal(torch.stack(list(vectors)), expected)
