"""Hand-computed merges along arcs: base, task vectors, parameters, and the numbers that must come out."""

import math

import pytest
import torch

from supermerge.methods import get

H = math.sqrt(0.5)
R3 = math.sqrt(3)

EXAMPLES = {
    "slerp, the middle of a right angle": ("slerp", {}, [0, 0], [[1, 0], [0, 1]], [H, H]),
    "slerp, from the base to one expert": ("slerp", {"t": 0.5}, [1, 0], [[-1, 1]], [H, H]),
    "slerp, a third of a right angle": ("slerp", {"t": 1 / 3}, [0, 0], [[1, 0], [0, 1]], [R3 / 2, 0.5]),
    "slerp, lengths are not normalised": ("slerp", {}, [0, 0], [[2, 0], [0, 4]], [2 * H, 4 * H]),
    "slerp, t 0": ("slerp", {"t": 0}, [0, 0], [[3, 1], [0, 4]], [3, 1]),
    "slerp, t 1": ("slerp", {"t": 1}, [0, 0], [[3, 1], [0, 4]], [0, 4]),
    "slerp, parallel tensors on the line": ("slerp", {"t": 0.25}, [0, 0], [[1, 1], [3, 3]], [1.5, 1.5]),
    "nuslerp, on task vectors": ("nuslerp", {}, [5, 5], [[1, 0], [0, 1]], [5 + H, 5 + H]),
    "nuslerp, weights 2 to 1": ("nuslerp", {"weights": [2, 1]}, [0, 0], [[1, 0], [0, 1]], [R3 / 2, 0.5]),
    "nuslerp, along rows": (
        "nuslerp",
        {"along": "last"},
        [[0, 0], [0, 0]],
        [[[1, 0], [1, 0]], [[0, 1], [3, 0]]],
        [[H, H], [2, 0]],
    ),
    "nuslerp, along columns": (
        "nuslerp",
        {"along": "first"},
        [[0, 0], [0, 0]],
        [[[1, 1], [0, 0]], [[0, 3], [1, 0]]],
        [[H, 2], [H, 0]],
    ),
    "karcher, two unit vectors are slerp's middle": ("karcher", {}, [0, 0], [[1, 0], [0, 1]], [H, H]),
    "karcher, three axes": ("karcher", {}, [0] * 3, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [1 / R3] * 3),
    "karcher, mean length": ("karcher", {}, [0, 0], [[1, 0], [0, 3]], [2 * H, 2 * H]),
    "karcher, the base as a point": ("karcher", {"base_weight": 1}, [1, 0], [[-1, 1]], [H, H]),
    # On the circle the mean of the angles 0° and 90° with weights 2 to 1 is 30°.
    "karcher, weights": ("karcher", {"weights": [2, 1], "max_iter": 50}, [0, 0], [[1, 0], [0, 1]], [R3 / 2, 0.5]),
    "multislerp, mean direction, mean length": ("multislerp", {}, [1, 1], [[1, 0], [0, 2]], [1 + 1.5 * H, 1 + 1.5 * H]),
    "multislerp, opposite vectors are averaged": ("multislerp", {}, [1, 1], [[1, 0], [-1, 0]], [1, 1]),
    "multislerp, on weights": ("multislerp", {"on": "weights"}, [1, 0], [[0, 0], [-1, 1]], [H, H]),
    "model stock, 60 degrees": ("model_stock", {}, [0, 0], [[2, 0], [1, R3]], [1, R3 / 3]),
    "model stock, a right angle keeps the base": ("model_stock", {}, [7, 8], [[1, 0], [0, 1]], [7, 8]),
    "model stock, identical": ("model_stock", {}, [1, 1], [[1, 2], [1, 2]], [2, 3]),
    "model stock, an obtuse angle keeps the base": ("model_stock", {}, [7, 8], [[1, 0], [-1, 0.5]], [7, 8]),
    "model stock, per row": (
        "model_stock",
        {"per": "row"},
        [[0, 0], [7, 8]],
        [[[2, 0], [1, 0]], [[1, R3], [0, 1]]],
        [[1, R3 / 3], [7, 8]],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_merge_equals_the_numbers_computed_by_hand(example, check):
    check(*example)


def test_the_karcher_mean_is_where_the_logarithms_cancel():
    taus = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) + 1
    merged = get("karcher").bind({"max_iter": 100, "tol": 1e-9}).merge(torch.zeros(50), taus).double()
    units, mean = (taus / taus.norm(dim=1, keepdim=True)).double(), merged / merged.norm()
    cosines = units @ mean
    logarithms = (cosines.arccos() / cosines.arccos().sin())[:, None] * (units - cosines[:, None] * mean)
    assert float(logarithms.sum(0).norm()) < 1e-5
    assert float(merged.norm()) == pytest.approx(float(taus.norm(dim=1).mean()), rel=1e-5)
