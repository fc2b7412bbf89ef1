"""Hand-computed merges with statistics of the experts, and what the methods turn into in special cases."""

import pytest
import torch

from supermerge.checkpoint import Checkpoint
from supermerge.errors import DataError, RecipeError
from supermerge.methods import get
from supermerge.statistics import Stored
from supermerge.statistics.stored import Part


def given(sizes=(1.0, 1.0, 1.0), inputs_first=(), **kinds):
    """Statistics as they would have been measured: kind → the tensor called `weight`, of every expert."""
    sources = {
        kind: [Checkpoint.open({"weight": torch.as_tensor(value, dtype=torch.float32)}) for value in values]
        for kind, values in kinds.items()
    }
    return Stored(
        {
            kind: [Part(one, size, frozenset(inputs_first)) for one, size in zip(parts, sizes, strict=False)]
            for kind, parts in sources.items()
        }
    )


def merged(name, params, base, taus, measured):
    numbers = [torch.tensor(values, dtype=torch.float32) for values in (base, taus)]
    return get(name).bind(params).with_statistics(measured).merge(*numbers)


def assert_close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=tolerance)


PLAIN = {"estimator": "exact", "normalize": False}


class TestFisher:
    def test_worked_example(self):
        # (1·1 + 3·5) / 4
        assert_close(merged("fisher", PLAIN, [0], [[1], [5]], given(fisher_exact=[[1], [3]])), [4.0])

    def test_the_base_is_a_mere_reference_point(self):
        assert_close(merged("fisher", PLAIN, [2], [[-1], [3]], given(fisher_exact=[[1], [3]])), [4.0])

    def test_equal_information_gives_the_mean(self):
        found = merged("fisher", PLAIN, [1, 1], [[1, 2], [3, 0]], given(fisher_exact=[[0.3, 7], [0.3, 7]]))
        assert_close(found, [3.0, 2.0])

    def test_an_expert_that_knows_nothing_does_not_count(self):
        found = merged("fisher", {**PLAIN, "floor": 0}, [0], [[1], [5]], given(fisher_exact=[[2], [0]]))
        assert_close(found, [1.0], 0)

    def test_where_nobody_knows_anything_all_count_alike(self):
        found = merged("fisher", {**PLAIN, "floor": 0}, [0, 0], [[1, 1], [5, 5]], given(fisher_exact=[[0, 1], [0, 3]]))
        assert_close(found, [3.0, 4.0])

    def test_the_floor_is_a_share_of_the_root_mean_square(self):
        # F₂ is raised to 0.1 · 10 = 1: (1·1 + 1·5) / 2
        found = merged(
            "fisher", {**PLAIN, "floor": 0.1}, [0], [[1], [5]], given(sizes=(1, 10), fisher_exact=[[1], [0]])
        )
        assert_close(found, [3.0])

    def test_normalised_by_size(self):
        # Fisher (2, 12) of sizes (2, 4) is (1, 3).
        found = merged(
            "fisher", {"estimator": "exact"}, [0], [[1], [5]], given(sizes=(2, 4), fisher_exact=[[2], [12]])
        )
        assert_close(found, [4.0])

    def test_weights(self):
        found = merged("fisher", {**PLAIN, "weights": [3, 1]}, [0], [[1], [5]], given(fisher_exact=[[1], [3]]))
        assert_close(found, [3.0])

    def test_a_tensor_without_gradient_takes_the_mean(self):
        empty = Stored({"fisher_exact": [Part(Checkpoint.open({"x": torch.ones(1)}), 1.0)] * 2})
        assert_close(merged("fisher", PLAIN, [1], [[1], [5]], empty), [4.0])

    def test_a_negative_weight_is_refused(self):
        with pytest.raises(RecipeError, match=r"weights = .*greater than or equal to 0"):
            get("fisher").bind({"weights": [1, -1]})


def turned(base, taus):
    return [list(row) for row in zip(*base, strict=True)], [[list(r) for r in zip(*t, strict=True)] for t in taus]


G1, G2 = [[2.0, 1], [1, 2]], [[1.0, 0], [0, 1]]
ZERO, W1, W2 = [[0.0, 0]], [[1.0, 0]], [[0.0, 1]]


class TestRegMean:
    def test_diagonal_worked_example(self):
        grams = given(gram=[[[1, 0], [0, 3]], [[3, 0], [0, 1]]])
        found = merged("regmean", {"keep": 0, "ridge": 0}, ZERO, [[[1, 1]], [[5, 5]]], grams)
        assert_close(found, [[4.0, 2.0]])

    @pytest.mark.parametrize(("keep", "expected"), [(1, [0.5, 0.5]), (0.5, [0.6, 0.4]), (0, [2 / 3, 1 / 3])])
    def test_off_diagonal_worked_example(self, keep, expected):
        found = merged("regmean", {"keep": keep, "ridge": 0}, ZERO, [W1, W2], given(gram=[G1, G2]))
        assert_close(found, [expected])

    def test_a_weight_with_its_inputs_first_gives_the_same(self):
        base, taus = turned(ZERO, [W1, W2])
        measured = given(inputs_first=["weight"], gram=[G1, G2])
        assert_close(merged("regmean", {"keep": 0.5, "ridge": 0}, base, taus, measured), [[0.6], [0.4]])

    def test_equal_grams_give_the_mean(self):
        found = merged("regmean", {"keep": 1}, ZERO, [W1, W2], given(gram=[G1, G1]))
        assert_close(found, [[0.5, 0.5]])

    def test_only_the_diagonal_of_isotropic_inputs_gives_the_mean(self):
        found = merged("regmean", {"keep": 0}, ZERO, [W1, W2], given(gram=[[[3, 1], [1, 3]], [[3, -1], [-1, 3]]]))
        assert_close(found, [[0.5, 0.5]])

    def test_it_minimises_the_distance_to_the_outputs(self):
        draw = torch.Generator().manual_seed(0)
        inputs, taus = torch.randn(2, 30, 4, generator=draw), torch.randn(2, 3, 4, generator=draw)
        grams = [x.T @ x / len(x) for x in inputs]
        bound = get("regmean").bind({"keep": 1, "ridge": 0}).with_statistics(given(gram=grams))
        w = bound.merge(torch.zeros(3, 4), taus).requires_grad_()
        loss = sum(((x @ w.T - x @ tau.T) ** 2).mean() for x, tau in zip(inputs, taus, strict=True))
        loss.backward()
        assert w.grad.abs().max() < 1e-6

    def test_grams_that_are_singular_together_are_refused_or_regularised_by_a_stated_amount(self):
        seen = given(gram=[[[1, 0], [0, 0]], [[3, 0], [0, 0]]])
        with pytest.raises(DataError, match=r"tensor 'weight'.*singular together"):
            merged("regmean", {"keep": 1, "ridge": 0}, ZERO, [[[1, 1]], [[5, 5]]], seen)
        # The direction that no example has takes the mean.
        assert_close(merged("regmean", {"keep": 1}, ZERO, [[[1, 1]], [[5, 5]]], seen), [[4.0, 3.0]], 1e-5)

    def test_a_tensor_without_gram_takes_the_mean(self):
        empty = Stored({"gram": [Part(Checkpoint.open({"x": torch.ones(1)}), 1.0)] * 2})
        assert_close(merged("regmean", {}, [1], [[1], [5]], empty), [4.0])
