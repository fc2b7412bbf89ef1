from __future__ import annotations

import pytest
import torch

from supermerge.errors import RecipeError
from supermerge.methods.context import BLOCK, Context
from supermerge.methods.transforms import agree_mean, agree_sum, elect, keep_large, normalised, weighted_sum


def test_weighted_sum_takes_a_stream_and_a_coefficient_per_row():
    base, taus = torch.ones(2, 3), [torch.ones(2, 3), torch.full((2, 3), 2.0)]
    rows = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    assert weighted_sum(base, iter(taus), rows).tolist() == [[3, 3, 3], [3, 3, 3]]
    assert weighted_sum(base, iter(taus), torch.tensor([1.0, 0.5])).tolist() == [[3, 3, 3], [3, 3, 3]]
    assert base.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_weighted_sum_with_coefficients_of_zero_keeps_every_bit():
    base = torch.tensor([-0.0, 1.0])
    merged = weighted_sum(base, torch.ones(2, 2), [0.0, 0.0])
    assert torch.equal(merged.view(torch.int32), base.view(torch.int32))


def test_weighted_sum_refuses_fewer_coefficients_than_task_vectors():
    with pytest.raises(ValueError, match="zip"):
        weighted_sum(torch.zeros(1), torch.zeros(3, 1), [1.0, 1.0])


def test_normalised_weights_sum_to_one_and_zero_is_refused():
    assert normalised([1, 3], "linear") == [0.25, 0.75]
    with pytest.raises(RecipeError, match="linear: the weights \\[2, -2\\] sum to 0") as caught:
        normalised([2, -2], "linear")
    assert "normalize: false" in str(caught.value.hint)


def test_trim_elect_and_agree():
    taus = torch.tensor([[4.0, -1.0, 3.0, 0.5], [-2.0, 5.0, 0.1, -0.5]])
    assert keep_large(taus[0], 3.0).tolist() == [4, 0, 3, 0]
    assert keep_large(taus[0], 0.0).tolist() == taus[0].tolist()
    assert keep_large(taus[0], float("inf")).tolist() == [0, 0, 0, 0]
    assert elect(taus, tie=1).tolist() == [1, 1, 1, 1]
    assert elect(taus, tie=-1).tolist() == [1, 1, 1, -1]
    assert agree_mean(taus, elect(taus, tie=1), [1.0, 1.0]).tolist() == [4, 5, pytest.approx(1.55), 0.5]
    assert agree_sum(taus, elect(taus, tie=-1)).tolist() == [4, 5, pytest.approx(3.1), -0.5]


def test_weights_of_both_signs_that_cancel_do_not_divide_by_zero():
    taus = torch.tensor([[4.0, 1.0], [-2.0, 0.0]])  # weighted already, by 1 and -1
    assert agree_mean(taus * torch.tensor([[1.0], [-1.0]]), torch.ones(2), [1.0, -1.0]).tolist() == [6, 1]


def test_a_probability_may_differ_by_element():
    context = Context("w", (3,), ("a",))
    always = torch.tensor([0.0, 1.0, 1.0])
    assert context.bernoulli("della", 0, always, torch.zeros(3)).tolist() == [0, 1, 1]


def test_draws_depend_on_seed_method_expert_name_tensor_and_position_only():
    whole = Context("w", (2 * BLOCK + 7,), ("a", "b"), seed=5)
    piece = Context("w", (2 * BLOCK + 7,), ("b",), seed=5, offset=BLOCK)
    drawn = whole.bernoulli("dare", 1, 0.3, torch.zeros(2 * BLOCK + 7))
    assert torch.equal(drawn[BLOCK:], piece.bernoulli("dare", 0, 0.3, torch.zeros(BLOCK + 7)))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - 0.3) < 0.005
    few = torch.zeros(64)
    others = [
        whole.bernoulli("dare", 0, 0.5, few),
        whole.bernoulli("della", 1, 0.5, few),
        Context("v", (64,), ("a", "b"), seed=5).bernoulli("dare", 1, 0.5, few),
        Context("w", (64,), ("a", "b"), seed=6).bernoulli("dare", 1, 0.5, few),
        piece.bernoulli("dare", 0, 0.5, few),
        whole.bernoulli("dare", 1, 0.5, few),
    ]
    assert len({tuple(draw.tolist()) for draw in others}) == len(others)
