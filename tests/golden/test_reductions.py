"""Methods that become another one at an end of their parameters' ranges, on random task vectors."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from given_statistics import given

from supermerge.learn import learn
from supermerge.learn.compression.quantised import Quantised
from supermerge.methods import get

DRAW = torch.Generator().manual_seed(5)
BASE = torch.randn(6, 4, generator=DRAW)
TAUS = torch.randn(3, 6, 4, generator=DRAW)

SAME = {
    "dare that drops nothing": ("dare_linear", {"drop": 0}, "task_arithmetic", {}),
    "dare_ties that drops nothing": ("dare_ties", {"drop": 0}, "ties", {"density": 1}),
    "della that drops nothing": ("della", {"density": 1, "epsilon": 0}, "ties", {"density": 1}),
    "breadcrumbs that trims nothing": ("breadcrumbs", {"density": 1, "gamma": 0}, "task_arithmetic", {}),
    "iso_cts that finds all directions common": ("iso_cts", {"common": 1}, "iso_c", {}),
    "awd that takes no step": ("awd", {"steps": 0, "scale": 0.3}, "task_arithmetic", {"scale": 0.3}),
    "task arithmetic of equal shares": ("task_arithmetic", {"scale": 1 / 3}, "linear", {}),
    "consensus that asks for nobody": ("consensus", {"tasks": 0, "scale": 0.3}, "task_arithmetic", {"scale": 0.3}),
}


@pytest.mark.parametrize("name", SAME)
def test_at_the_end_of_its_range_a_method_is_another(name: str) -> None:
    one, params, other, others = SAME[name]
    found, expected = (get(m).bind(p).merge(BASE, TAUS) for m, p in ((one, params), (other, others)))
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_one_expert_that_ties_leaves_whole_comes_back() -> None:
    found = get("ties").bind({"density": 1}).merge(BASE, TAUS[:1])
    assert torch.equal(found, BASE + TAUS[0])


def test_inputs_that_look_alike_in_every_direction_make_regmean_the_mean() -> None:
    grams = [2.0 * torch.eye(4)] * 3
    bound = get("regmean").bind({"keep": 1.0}).with_statistics(given(k=3, gram=grams))
    assert torch.allclose(bound.merge(BASE, TAUS), BASE + TAUS.mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["adamerging", "supermerge"])
def test_before_the_first_step_a_learned_merge_is_task_arithmetic(name: str) -> None:
    spec = get(name).learned
    assert spec is not None
    model = torch.nn.Linear(4, 6, bias=False)
    experts = {str(i): {"weight": BASE + tau} for i, tau in enumerate(TAUS)}
    learned = learn(
        model, {"weight": BASE}, experts, [], lambda *_: model.weight.sum(), steps=0, lr=1, link=spec.link, init=0.3
    )
    expected = get("task_arithmetic").bind({"scale": 0.3}).merge(BASE, TAUS)
    assert torch.allclose(learned.state_dict()["weight"], expected, rtol=0, atol=1e-5)


def test_with_more_bits_tvq_comes_to_the_task_vector_itself() -> None:
    tau = TAUS[0].reshape(-1)
    errors = []
    for bits in (2, 3, 4, 8):
        found = torch.empty_like(tau)
        Quantised(tau, bits).write(0, len(tau), found)
        errors.append(float((found - tau).abs().max()))
    steps = [float(tau.max() - tau.min()) / (2**bits - 1) for bits in (2, 3, 4, 8)]
    assert all(error <= step * 1.000001 for error, step in zip(errors, steps, strict=True))
    assert errors == sorted(errors, reverse=True)
