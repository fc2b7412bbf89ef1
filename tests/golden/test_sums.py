"""Hand-computed merges by sums of task vectors: base, task vectors, parameters, and the numbers that must come out."""

import math

import pytest
import torch

from supermerge.learn.automatic_start import EACH
from supermerge.methods import get

PAIR = [[4, -1, 3, 0.5, 0], [-2, 5, 0.1, 1, 0.2]]

EXAMPLES = {
    "linear, mean of two experts": ("linear", {}, [1, 2], [[1, 0], [0, 2]], [1.5, 3]),
    "linear, weights 3 to 1": ("linear", {"weights": [3, 1]}, [0, 0], [[4, 0], [0, 4]], [3, 1]),
    "linear, not normalised": ("linear", {"weights": [1, 1], "normalize": False}, [1, 2], [[1, 0], [0, 2]], [3, 6]),
    "task arithmetic, scale 0.5": ("task_arithmetic", {"scale": 0.5}, [1, 2], [[1, 0], [0, 2]], [1.5, 3]),
    "task arithmetic, default 0.3": ("task_arithmetic", {}, [1, 2], [[1, 0], [0, 2]], [1.3, 2.6]),
    "task arithmetic, weights as given": ("task_arithmetic", {"weights": [1, 0.5]}, [1, 2], [[1, 0], [0, 2]], [2, 3]),
    "task arithmetic, negation": ("task_arithmetic", {"weights": [-1]}, [1, 2], [[1, 0.5]], [0, 1.5]),
    "task arithmetic, analogy C + (B - A)": (
        "task_arithmetic",
        {"weights": [1, -1, 1]},
        [0, 0],
        [[1, 2], [0.5, 0.5], [2, 1]],
        [2.5, 2.5],
    ),
    "task arithmetic, scale 0 is the base": ("task_arithmetic", {"scale": 0}, [1, 2], [[1, 0], [0, 2]], [1, 2]),
    "task arithmetic, forgetting undoes learning": (
        "task_arithmetic",
        {"weights": [-1, 1]},
        [1, 2],
        [[0.5, 3], [0.5, 3]],
        [1, 2],
    ),
    "task arithmetic, 1/k is the average": ("task_arithmetic", {"scale": 0.5}, [0, 0], [[2, 2], [4, -2]], [3, 0]),
    "ties, everything kept, mean": ("ties", {"density": 1}, [0] * 5, PAIR, [4, 5, 1.55, 0.75, 0.2]),
    "ties, everything kept, sum": ("ties", {"density": 1, "merge": "sum"}, [0] * 5, PAIR, [4, 5, 3.1, 1.5, 0.2]),
    "ties, density 0.4 keeps three, as the authors' code": ("ties", {"density": 0.4}, [0] * 5, PAIR, [4, 5, 3, 1, 0]),
    "ties, density 0.4 of a tensor keeps two": (
        "ties",
        {"density": 0.4, "trim": "tensor"},
        [0] * 5,
        PAIR,
        [4, 5, 3, 0, 0],
    ),
    "ties, one expert, everything kept": ("ties", {"density": 1}, [1, 1, 1], [[1, -2, 3]], [2, -1, 4]),
    "ties, scale 0.5": ("ties", {"density": 1, "scale": 0.5}, [0] * 5, PAIR, [2, 2.5, 0.775, 0.375, 0.1]),
    "ties, weights": ("ties", {"density": 1, "weights": [3, 1]}, [0, 0], [[2, -1], [1, 2]], [1.75, -1]),
    # A vote without a majority ends with the negative branch; `positive` takes the other.
    "ties, opposite task vectors": (
        "ties",
        {"density": 1, "zero_sign": "majority"},
        [0, 0],
        [[1, -2], [-1, 2]],
        [-1, -2],
    ),
    "ties, opposite task vectors, positive": ("ties", {"density": 1}, [0, 0], [[1, -2], [-1, 2]], [1, 2]),
    "ties, a sum of zero takes the sign of the majority": (
        "ties",
        {"density": 1, "zero_sign": "majority"},
        [0] * 3,
        [[1, 2, 3], [-1, 2, 3]],
        [1, 2, 3],
    ),
    "ties, a sum of zero takes the sign of the majority, tensor by tensor": (
        "ties",
        {"density": 1, "zero_sign": "majority", "trim": "tensor"},
        [0] * 3,
        [[1, -2, -3], [-1, -2, -3]],
        [-1, -2, -3],
    ),
    "dare, nothing dropped": ("dare_linear", {"drop": 0}, [1, 2], [[1, 0], [0, 2]], [1.3, 2.6]),
    "dare_ties, nothing dropped": ("dare_ties", {"drop": 0}, [0] * 5, PAIR, [4, 5, 1.55, 0.75, 0.2]),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_merge_equals_the_numbers_computed_by_hand(example, check):
    check(*example)


def test_dare_drops_or_doubles_every_element_at_one_half():
    tau = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1))
    merged = get("dare").bind({"drop": 0.5, "scale": 1}).merge(torch.zeros(5000), tau)
    ratio = merged / tau[0]
    assert set(ratio.tolist()) == {0.0, 2.0}


def test_dare_is_unbiased_with_the_variance_of_a_scaled_bernoulli():
    p, tau, seeds = 0.75, torch.tensor([[1.0, -2.0, 0.5, 3.0]]), 1000
    bound = get("dare").bind({"drop": p, "scale": 1})
    draws = torch.stack([bound.merge(torch.zeros(4), tau, seed=seed) for seed in range(seeds)])
    variance = tau[0] ** 2 * p / (1 - p)
    assert ((draws.mean(0) - tau[0]).abs() < 4 * (variance / seeds).sqrt()).all()
    assert torch.allclose(draws.var(0), variance, rtol=0.15)


def test_the_start_of_supermerge_is_task_arithmetic():
    spec = get("supermerge").learned
    assert spec is not None
    assert (spec.link, spec.init, spec.loss, spec.granularity, spec.data) == (
        "tanh",
        "auto",
        "cross_entropy",
        "tensor",
        "labelled",
    )
    base, taus = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    w = math.atanh(EACH)
    merged = get("task_arithmetic").bind({"weights": [math.tanh(w)] * 2}).merge(base, taus)
    assert torch.equal(merged, get("task_arithmetic").bind().merge(base, taus))
