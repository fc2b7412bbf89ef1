"""Hand-computed merges with statistics of the experts, and what the methods turn into in special cases."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from given_statistics import given

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError, DataError, RecipeError
from supermerge.events import subscribed
from supermerge.methods import Context, get
from supermerge.methods.esm import LayerNorms, essential_directions, relative
from supermerge.methods.sens_merging import layer_shares
from supermerge.statistics import Stored
from supermerge.statistics.stored import Part


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
        found = merged("fisher", {"estimator": "exact"}, [0], [[1], [5]], given(sizes=(2, 4), fisher_exact=[[2], [12]]))
        assert_close(found, [4.0])

    def test_weights(self):
        found = merged("fisher", {**PLAIN, "weights": [3, 1]}, [0], [[1], [5]], given(fisher_exact=[[1], [3]]))
        assert_close(found, [3.0])

    def test_a_tensor_without_gradient_takes_the_mean(self):
        assert_close(merged("fisher", PLAIN, [1], [[1], [5]], given()), [4.0])

    def test_a_negative_weight_is_refused(self):
        with pytest.raises(RecipeError, match=r"weights = .*greater than or equal to 0"):
            get("fisher").bind({"weights": [1, -1]})


class TestGradientMatching:
    @pytest.mark.parametrize(
        ("scale", "base_size", "expected"), [(1, 1, 1.2), (0.5, 1, 1.0), (1, 0, 1.25)], ids=["one", "half", "no base"]
    )
    def test_worked_example(self, scale, base_size, expected):
        params = {"estimator": "exact", "scale": scale, "base_size": base_size, "prior": 0}
        measured = given(fisher_exact=[[3], [1]], base_fisher_exact=[[1]])
        assert_close(merged("gradient_matching", params, [0], [[2], [-1]], measured), [expected])

    def test_sizes_multiply_the_mean(self):
        params = {"estimator": "exact", "scale": 1, "sizes": [30, 10], "base_size": 10}
        measured = given(fisher_exact=[[0.1], [0.1]], base_fisher_exact=[[0.1]])
        assert_close(merged("gradient_matching", params, [0], [[2], [-1]], measured), [1.2])

    def test_experts_without_information_give_task_arithmetic(self):
        measured = given(fisher_exact=[[0, 0], [0, 0]], base_fisher_exact=[[1, 0]])
        params = {"estimator": "exact", "scale": 0.3}
        base, taus = [1, 2], [[1, 0], [0, 2]]
        found = merged("gradient_matching", params, base, taus, measured)
        expected = get("task_arithmetic").bind({"scale": 0.3}).merge(torch.tensor([1.0, 2]), torch.tensor(taus).float())
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)

    def test_a_base_without_information_gives_fisher_merging(self):
        h = [[0.2, 3, 1], [1, 1, 5]]
        measured = given(fisher_exact=h, base_fisher_exact=[[0, 0, 0]])
        base, taus = [1, 2, 3], [[1, -1, 2], [0.5, 2, 0]]
        found = merged("gradient_matching", {"estimator": "exact", "scale": 1, "prior": 0}, base, taus, measured)
        assert torch.allclose(found, merged("fisher", PLAIN, base, taus, measured), rtol=0, atol=1e-6)

    def test_one_expert_comes_back_whatever_is_known(self):
        measured = given(fisher_exact=[[0.2, 7]], base_fisher_exact=[[3, 0.1]])
        found = merged("gradient_matching", {"estimator": "exact", "scale": 1}, [1, 1], [[2, -1]], measured)
        assert_close(found, [3.0, 0.0])

    def test_a_base_that_outweighs_the_experts_gives_task_arithmetic(self):
        # What the demo's base does: H₀ is a hundred times what the experts know.
        measured = given(fisher_exact=[[0.01, 0.02], [0.03, 0.01]], base_fisher_exact=[[3, 3]])
        found = merged("gradient_matching", {"estimator": "exact", "scale": 0.3}, [1, 1], [[1, 2], [3, 4]], measured)
        assert_close(found, [1 + 0.3 * 4, 1 + 0.3 * 6], 0.01)

    def test_equal_experts_overshoot_by_what_the_base_counts_once_more(self):
        # (2 · 1 + 3 + 2) / (1 + 3 + 2)
        measured = given(fisher_exact=[[3], [2]], base_fisher_exact=[[1]])
        found = merged("gradient_matching", {"estimator": "exact", "scale": 1, "prior": 0}, [0], [[1], [1]], measured)
        assert_close(found, [7 / 6])

    def test_without_information_and_prior_tasks_count_alike(self):
        params = {"estimator": "exact", "scale": 1, "prior": 0}
        nothing = given(fisher_exact=[[0], [0]], base_fisher_exact=[[0]])
        found = merged("gradient_matching", params, [0], [[2], [-1]], nothing)
        assert_close(found, [0.5])


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
        # The direction that no example has takes the mean. The mean diagonal is (1 + 3) / 2 / 2 experts.
        with subscribed((said := []).append):
            assert_close(merged("regmean", {"keep": 1}, ZERO, [[[1, 1]], [[5, 5]]], seen), [[4.0, 3.0]], 1e-5)
        assert [(event.kind, event.fields["message"].partition(", and")[0]) for event in said] == [
            (
                "warning",
                "tensor 'weight': the experts' Gram matrices [2, 2] are singular together; "
                "ridge 1e-06 adds 1e-06 to every diagonal element",
            )
        ]

    def test_what_is_regular_is_solved_without_a_word(self):
        with subscribed((said := []).append):
            merged("regmean", {}, ZERO, [W1, W2], given(gram=[G1, G2]))
        assert said == []

    def test_a_tensor_without_gram_takes_the_mean(self):
        assert_close(merged("regmean", {}, [1], [[1], [5]], given()), [4.0])


class TestRegMeanPlusPlus:
    def test_regmean_s_example_on_the_inputs_of_the_merge(self):
        measured = given(merged_gram=[G1, G2])
        found = merged("regmean_plus_plus", {"keep": 0.5, "ridge": 0}, ZERO, [W1, W2], measured)
        assert_close(found, [[0.6, 0.4]])

    def test_a_tensor_without_inputs_takes_the_mean(self):
        assert_close(merged("regmean_plus_plus", {}, [1], [[1], [5]], given(gram=[G1, G2])), [4.0])


A1, B1, EYE, SWAP = [[2.0, 0], [0, 1]], [[1.0, 0], [0, 2]], [[1.0, 0], [0, 1]], [[0.0, 1], [1, 0]]
EXACTLY = {"tolerance": 1e-10}


class TestMats:
    def kronecker(self, a, b, **options):
        return given(gram=a, gradient_gram_empirical=b, **options)

    def test_worked_example(self):
        found = merged("mats", EXACTLY, [[0, 0], [0, 0]], [EYE, SWAP], self.kronecker([A1, EYE], [B1, EYE]))
        assert_close(found, [[2 / 3, 0.5], [0.2, 2 / 3]])  # W, the transpose of X

    def test_a_weight_with_its_inputs_first_is_x_itself(self):
        measured = self.kronecker([A1, EYE], [B1, EYE], inputs_first=["weight"])
        assert_close(merged("mats", EXACTLY, [[0, 0], [0, 0]], [EYE, SWAP], measured), [[2 / 3, 0.2], [0.5, 2 / 3]])

    def drawn(self, sides=(3, 3), k=2):
        draw = torch.Generator().manual_seed(1)
        out, inputs = sides
        matrices = []
        for n in (inputs, out):
            rows = torch.randn(k, 2 * n, n, generator=draw)
            matrices.append([each.T @ each / len(each) for each in rows])
        return torch.randn(k, out, inputs, generator=draw), *matrices

    @pytest.mark.parametrize("sides", [(3, 3), (2, 4)])
    def test_it_is_the_solution_of_the_kronecker_system(self, sides):
        taus, a, b = self.drawn(sides)
        bound = get("mats").bind(EXACTLY).with_statistics(self.kronecker(a, b))
        system = sum(torch.kron(x.double(), y.double()) for x, y in zip(a, b, strict=True))
        right = sum((x.double() @ tau.double().T @ y.double()).flatten() for x, y, tau in zip(a, b, taus, strict=True))
        expected = torch.linalg.solve(system, right).view(sides[1], sides[0]).T.float()
        assert torch.allclose(bound.merge(torch.zeros(sides), taus), expected, rtol=0, atol=1e-6)

    def test_without_outputs_it_is_regmean(self):
        taus, a, _ = self.drawn((2, 4))
        measured = given(gram=a)
        ours = get("mats").bind({"subspace": "inputs", **EXACTLY}).with_statistics(measured)
        theirs = get("regmean").bind({"keep": 1, "ridge": 0}).with_statistics(measured)
        assert torch.allclose(ours.merge(torch.ones(2, 4), taus), theirs.merge(torch.ones(2, 4), taus), atol=1e-5)

    def test_with_identities_for_outputs_it_is_regmean(self):
        taus, a, _ = self.drawn((2, 4))
        ours = get("mats").bind(EXACTLY).with_statistics(self.kronecker(a, [torch.eye(2)] * 2))
        theirs = get("regmean").bind({"keep": 1, "ridge": 0}).with_statistics(given(gram=a))
        assert torch.allclose(ours.merge(torch.ones(2, 4), taus), theirs.merge(torch.ones(2, 4), taus), atol=1e-5)

    def test_with_identities_for_both_it_is_the_mean(self):
        measured = self.kronecker([EYE, EYE], [EYE, EYE])
        assert_close(merged("mats", EXACTLY, [[0, 0], [0, 0]], [EYE, SWAP], measured), [[0.5, 0.5], [0.5, 0.5]])

    def test_with_the_diagonal_it_is_fisher_merging(self):
        measured = given(fisher_empirical=[[1], [3]])
        assert_close(merged("mats", {"subspace": "fisher", **EXACTLY}, [0], [[1], [5]], measured), [4.0])

    def test_without_iterations_it_is_the_start(self):
        measured = self.kronecker([A1, EYE], [B1, EYE])
        found = merged("mats", {"iterations": 0, "start": 0.5}, [[1, 1], [1, 1]], [EYE, SWAP], measured)
        assert_close(found, [[1.5, 1.5], [1.5, 1.5]])

    def test_what_no_task_is_sensitive_to_keeps_its_start(self):
        measured = given(gram=[[[1, 0], [0, 0]], [[3, 0], [0, 0]]])
        found = merged("mats", {"subspace": "inputs", "start": 0.25}, ZERO, [[[1, 1]], [[5, 5]]], measured)
        assert_close(found, [[4.0, 1.5]], 1e-5)

    def test_one_converged_expert_is_returned(self):
        taus, a, b = self.drawn((2, 4), k=1)
        bound = get("mats").bind(EXACTLY).with_statistics(self.kronecker(a, b))
        assert torch.allclose(bound.merge(torch.zeros(2, 4), taus), taus[0], rtol=0, atol=1e-5)

    def test_the_error_falls_in_the_norm_of_the_system(self):
        taus, a, b = self.drawn((3, 4))
        system = sum(torch.kron(x.double(), y.double()) for x, y in zip(a, b, strict=True))
        found = [
            get("mats")
            .bind({"iterations": n, "tolerance": 0})
            .with_statistics(self.kronecker(a, b))
            .merge(torch.zeros(3, 4), taus)
            for n in (0, 1, 2, 3, 5, 8, 30)
        ]
        wrong = [(each - found[-1]).double().T.flatten() for each in found[:-1]]
        errors = [float(each @ system @ each) for each in wrong]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-2 * errors[0]

    def test_what_has_not_converged_is_said(self):
        taus, a, b = self.drawn((3, 4))
        said = []
        with subscribed(said.append):
            get("mats").bind({"iterations": 2}).with_statistics(self.kronecker(a, b)).merge(torch.zeros(3, 4), taus)
        assert "tensor 'weight': conjugate gradients stopped after 2 iterations" in said[0].fields["message"]

    @pytest.mark.parametrize(
        ("wrong", "error", "said"),
        [
            (float("nan"), CheckpointError, "tensor 'weight' has 2 values that are NaN"),
            (-1.0, DataError, "tensor 'weight': conjugate gradients do not converge"),
        ],
    )
    def test_what_cannot_converge_is_refused(self, wrong, error, said):
        measured = given(gram=[[[wrong, 0], [0, wrong]], [[0, 0], [0, 0]]])
        with pytest.raises(error, match=said):
            merged("mats", {"subspace": "inputs"}, ZERO, [[[1, 1]], [[5, 5]]], measured)


def task_arithmetic(scale, base, taus):
    numbers = [torch.tensor(values, dtype=torch.float32) for values in (base, taus)]
    return get("task_arithmetic").bind({"scale": scale}).merge(*numbers)


class TestLot:
    def test_where_all_inputs_are_seen_it_is_regmean(self):
        measured = given(gram=[G1, G2])
        found = merged("lot", {"ridge": 0}, [[1, 2]], [W1, W2], measured)
        expected = merged("regmean", {"keep": 1, "ridge": 0}, [[1, 2]], [W1, W2], measured)
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)

    def test_a_weight_with_its_inputs_first_gives_the_same(self):
        base, taus = turned(ZERO, [W1, W2])
        measured = given(inputs_first=["weight"], gram=[G1, G2])
        assert_close(merged("lot", {"ridge": 0}, base, taus, measured), [[0.5], [0.5]])

    def test_what_no_example_shows_stays_the_base_s_as_with_a_pseudo_inverse(self):
        seen = [[[1.0, 0], [0, 0]], [[3.0, 0], [0, 0]]]
        taus = [[[1.0, 1]], [[5.0, 5]]]
        with subscribed((said := []).append):
            found = merged("lot", {}, [[1, 2]], taus, given(gram=seen))
        assert_close(found, [[5.0, 2.0]], 1e-5)
        g, t = torch.tensor(seen), torch.tensor(taus)
        published = torch.linalg.pinv(g.sum(0)) @ (g @ t.mT).sum(0)
        assert torch.allclose(found - torch.tensor([[1.0, 2]]), published.T, atol=1e-5)
        assert "tensor 'weight'" in said[0].fields["message"]
        assert said[0].fields["message"].endswith("directions that no example has take the base.")

    def test_singular_without_a_ridge_is_refused(self):
        with pytest.raises(DataError, match=r"tensor 'weight'.*singular together"):
            merged("lot", {"ridge": 0}, ZERO, [W1, W2], given(gram=[[[1, 0], [0, 0]]] * 2))

    def test_scales_of_normalisations_by_the_moments_of_what_they_multiply(self):
        # (1·1 + 3·5) / 4; where nothing comes in, the mean.
        found = merged("lot", {}, [1, 1], [[1, 1], [5, 5]], given(norm_moments=[[1, 0], [3, 0]]))
        assert_close(found, [5.0, 4.0])

    def test_other_tensors_take_the_mean_and_all_are_scaled(self):
        assert_close(merged("lot", {"scale": 0.5}, [1], [[1], [5]], given()), [2.5])


X1, X2 = [[1.0, 0], [0, 0]], [[0.0, 0], [0, 1]]
OFF = {"directions": 0, "scales": 0, "biases": 0}


class TestCat:
    def cut(self, preserve, rescale=False, grams=(X1, X2)):
        params = {"scale": 1, "directions": 1, "preserve": preserve, "rescale": rescale}
        taus = [[[0, 0], [0, 0]], [[2, 0], [1, 1]]]
        return merged("cat", params, [[0, 0], [0, 0]], taus, given(gram=grams))

    def test_worked_example(self):
        # G = [[4, 2], [2, 1]], B = (2, 1) / √5: nothing is left of what disturbs task 1.
        assert_close(self.cut(0), [[0.0, -0.4], [0.0, 0.8]])

    def test_worked_example_that_preserves(self):
        # G = [[4, 2], [2, 0.5]]; of the first task's input (1, 0) comes
        assert_close(self.cut(0.5)[:, 0], [-0.0348, 0.0767], 5e-5)

    def test_rescaled_to_the_norm_of_the_whole(self):
        assert_close(self.cut(0, rescale=True).norm(), 6**0.5)

    def test_projections_of_three_experts_do_not_depend_on_their_order(self):
        draw = torch.Generator().manual_seed(3)
        taus, x = torch.randn(3, 5, 4, generator=draw), torch.randn(3, 9, 4, generator=draw)
        grams = [each.T @ each for each in x]
        bound = get("cat").bind({"directions": 1, "preserve": 0.5})
        one = bound.with_statistics(given(gram=grams)).merge(torch.zeros(5, 4), taus)
        other = bound.with_statistics(given(gram=grams[::-1])).merge(torch.zeros(5, 4), taus.flip(0))
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
        assert not torch.allclose(one, 0.4 * taus.sum(0), atol=1e-2)

    def test_without_directions_it_is_task_arithmetic(self):
        base, taus = [[1, 2], [3, 4]], [[[2, 0], [1, 1]], [[0, 1], [1, 3]]]
        found = merged("cat", {**OFF, "scale": 0.3}, base, taus, given(gram=[G1, X2]))
        assert torch.equal(found, task_arithmetic(0.3, base, taus))

    def test_one_expert_gives_task_arithmetic(self):
        base, taus = [[1, 2], [3, 4]], [[[2, 0], [1, 1]]]
        assert torch.equal(merged("cat", {}, base, taus, given(gram=[G1])), task_arithmetic(0.4, base, taus))

    def test_preserving_all_gives_task_arithmetic_only_where_every_input_is_seen(self):
        base, taus = [[0, 0], [0, 0]], [[[2, 0], [1, 1]], [[0, 1], [1, 3]]]
        params = {"preserve": 1e3, "rescale": False}
        seen = merged("cat", params, base, taus, given(gram=[G1, G2]))
        assert torch.allclose(seen, task_arithmetic(0.4, base, taus))
        few = merged("cat", params, base, taus, given(gram=[X1, X2]))
        assert not torch.allclose(few, task_arithmetic(0.4, base, taus), atol=0.1)

    def test_a_weight_with_its_inputs_first_gives_the_same(self):
        base, taus = turned([[0, 0], [0, 0]], [[[0, 0], [0, 0]], [[2, 0], [1, 1]]])
        params = {"scale": 1, "directions": 1, "preserve": 0, "rescale": False}
        measured = given(inputs_first=["weight"], gram=[X1, X2])
        assert_close(merged("cat", params, base, taus, measured), [[0.0, 0.0], [-0.4, 0.8]])

    def test_scales_of_normalisations(self):
        # τ₂² (E x̂₁² − E x̂₂²) = (3, 8, 0): the second goes. Of τ₁ = 0 nothing can.
        params = {"scale": 1, "scales": 1, "preserve_scales": 1}
        measured = given(norm_moments=[[4, 3, 1], [1, 1, 1]])
        found = merged("cat", {**params, "rescale": False}, [1, 1, 1], [[0, 0, 0], [1, 2, 2]], measured)
        assert_close(found, [2.0, 1.0, 3.0])
        found = merged("cat", params, [1, 1, 1], [[0, 0, 0], [1, 2, 2]], measured)
        assert_close(found, [1 + 3 / 5**0.5, 1.0, 1 + 6 / 5**0.5])

    def test_biases_lose_their_largest_elements(self):
        bound = get("cat").bind({"scale": 1, "biases": 1}).with_statistics(given())
        taus = torch.tensor([[1.0, 2, 3], [6.0, 5, 4]])
        assert_close(bound.merge(torch.zeros(3), taus, name="layer.bias"), [1.0, 7.0, 4.0])
        assert_close(bound.merge(torch.zeros(3), taus, name="class_embedding"), [7.0, 7.0, 7.0])


class TestEsm:
    def test_one_diagonal_matrix_by_hand(self):
        # Ũ = I and Ã = diag(4, 1), whose singular values become 2.5.
        params = {"spread": 0, "dimensions": 0}
        found = merged("esm", params, [[0, 0], [0, 0]], [[[4, 0], [0, 1]]], given(gram=[EYE]))
        assert_close(found, [[5.0, 0.0], [0.0, 5.0]])

    def test_columns_of_more_consensus_grow(self):
        # Columns of norms 4 and 1 times (4 / 2.5)² and (1 / 2.5)²: 10.24 and 0.16, of mean 5.2.
        found = merged("esm", {"spread": 0, "gain": 1}, [[0, 0], [0, 0]], [[[4, 0], [0, 1]]], given(gram=[EYE]))
        assert_close(found, [[5.2, 0.0], [0.0, 5.2]])

    def test_what_is_larger_than_its_likes_grows(self):
        assert_close(relative(torch.tensor([3.0, 1.0]), 2), [2.25, 0.25])
        assert_close(relative(torch.tensor([2.0, 2.0, 2.0]), 2), [1.0, 1.0, 1.0])

    def drawn(self, m, n, seen):
        draw = torch.Generator().manual_seed(7)
        x = torch.randn(seen, n, generator=draw, dtype=torch.float64) @ torch.diag(torch.linspace(3, 0.1, n).double())
        return torch.randn(m, n, generator=draw, dtype=torch.float64), x

    @pytest.mark.parametrize(("m", "n"), [(3, 5), (6, 4)])
    def test_all_directions_together_are_the_whole(self, m, n):
        tau, x = self.drawn(m, n, 50)
        u, energies = essential_directions(tau, x.T @ x / len(x))
        assert u.shape == (m, min(m, n))
        assert torch.allclose(u @ u.T @ tau, tau, atol=1e-9)
        assert torch.allclose(u.T @ u, torch.eye(min(m, n)).double(), atol=1e-9)
        assert torch.allclose((x @ tau.T @ u).square().mean(0), energies)

    @pytest.mark.parametrize(("m", "n"), [(3, 5), (6, 4)])
    def test_the_leading_ones_keep_more_of_the_outputs_than_those_of_an_svd(self, m, n):
        tau, x = self.drawn(m, n, 50)
        u, _ = essential_directions(tau, x.T @ x / len(x))
        v = torch.linalg.svd(tau).U
        for k in range(1, min(m, n)):
            ours, theirs = (float((x @ (tau - d[:, :k] @ d[:, :k].T @ tau).T).norm()) for d in (u, v))
            assert ours < theirs

    def test_few_examples_have_few_directions(self):
        tau, x = self.drawn(4, 5, 2)
        assert essential_directions(tau, x.T @ x / 2)[0].shape == (4, 2)

    def test_layers_of_equal_norm_are_left_alone_and_others_spread(self):
        survey = LayerNorms(0.15, 2.0, 2.0, ())
        base = torch.zeros(2, 2)
        for number, factor in enumerate((1.0, 1.0, 4.0)):
            context = Context(f"layers.{number}.weight", (2, 2), ("a",))
            survey.observe(context, base, factor * torch.tensor([[[2.0, 0], [0, 1]]]))
        survey.finish_pass()
        assert survey.relative("layers.2.weight") == pytest.approx(2.0)
        assert survey.relative("layers.0.weight") == pytest.approx(0.5)
        assert survey.relative("embeddings.weight") == 1.0

    def test_a_matrix_without_inputs_merges_as_in_tsv_m(self):
        taus = [[[4, 0], [0, 1]], [[1, 1], [2, 0]]]
        numbers = torch.zeros(2, 2), torch.tensor(taus, dtype=torch.float32)
        assert torch.equal(merged("esm", {}, [[0, 0], [0, 0]], taus, given()), get("tsv_m").bind().merge(*numbers))


class TestSensMerging:
    def test_worked_example(self):
        # t = (1, 3) / 4, α = (1, 1): σ = softmax(0.25, 0.75) = (0.377541, 0.622459).
        measured = Stored(
            {
                kind: [Part(Checkpoint.open({name: torch.tensor(value)}), 1.0) for value in values]
                for kind, name, values in (
                    ("sensitivity_empirical", "weight", (1.0, 1.0)),
                    ("alignment", "alignment", (1.0, 3.0)),
                )
            }
        )
        found = merged("sens_merging", {"scale": 1}, [0, 0], [[1, 0], [0, 1]], measured)
        assert_close(found, [2 * 0.377541, 2 * 0.622459])
        assert_close(found.sum(), 2.0)
        cold = merged("sens_merging", {"scale": 1, "temperature": 1e-3}, [0, 0], [[1, 0], [0, 1]], measured)
        assert_close(cold, [0.0, 2.0])

    def test_equally_sensitive_experts_give_task_arithmetic(self):
        measured = Stored(
            {
                kind: [Part(Checkpoint.open({name: torch.tensor(0.5)}), 1.0)] * 3
                for kind, name in (("sensitivity_empirical", "weight"), ("alignment", "alignment"))
            }
        )
        base, taus = [1, 2], [[1, 0], [0, 1], [2, 2]]
        found = merged("sens_merging", {}, base, taus, measured)
        assert torch.allclose(found, task_arithmetic(0.3, base, taus), rtol=0, atol=1e-6)

    def test_shares_of_layers(self):
        # Layers 3 and 4 of norm 5, two tensors in the first.
        found = layer_shares({"l.0.a.weight": 1.0, "l.0.b.weight": 2.0, "l.1.a.weight": 4.0})
        assert found == pytest.approx({"l.0.a.weight": 0.6, "l.0.b.weight": 0.6, "l.1.a.weight": 0.8})
        assert layer_shares({"norm.weight": 0.0, "norm.bias": 0.0}) == {"norm.weight": 0.0, "norm.bias": 0.0}
