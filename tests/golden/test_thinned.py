"""Hand-computed merges of thinned task vectors: base, task vectors, parameters, and the numbers that must come out."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from supermerge.methods import Context, get
from supermerge.methods.cabs import keep_of_blocks
from supermerge.methods.della import keep_probability

ROW = [1, -2, 3, -4, 5, -6, 7, -8, 9, -10]
A, B = [0.5, -0.1, 0.3, 0.2, 0.1, 0.9, -0.8, 0.05], [0.6, 0.4, -0.2, 0.1, 0.7, -0.6, 0.2, 0.3]
TWO_OF_FOUR = {"keep": 2, "of": 4}
CRUMBS = {"density": 0.2, "gamma": 0.1, "scale": 1}

EXAMPLES = {
    "della, everything kept": ("della", {"density": 1}, [0] * 2, [[4, -1], [-2, 5]], [4, 5]),
    "della_linear, everything kept": ("della_linear", {"density": 1}, [0] * 2, [[4, -1], [-2, 5]], [0.6, 1.2]),
    "breadcrumbs, a row": ("breadcrumbs", CRUMBS, [0] * 10, [ROW], [0] * 7 + [-8, 9, 0]),
    "breadcrumbs, row by row": (
        "breadcrumbs",
        {"density": 0.5, "gamma": 0, "scale": 1},
        [[1, 1], [1, 1]],
        [[[1, 2], [-4, 3]]],
        [[1, 3], [-3, 1]],
    ),
    "breadcrumbs, along the tensor": (
        "breadcrumbs",
        {"density": 0.5, "gamma": 0, "scale": 1, "along": "tensor"},
        [[1, 1], [1, 1]],
        [[[1, 2], [-4, 3]]],
        [[1, 1], [-3, 4]],
    ),
    "breadcrumbs, outliers go, along the tensor": (
        "breadcrumbs",
        {**CRUMBS, "along": "tensor"},
        [0] * 10,
        [ROW],
        [0] * 7 + [-8, 9, 0],
    ),
    # Without outliers to remove nothing may vanish.
    "breadcrumbs, gamma 0, along the tensor": (
        "breadcrumbs",
        {**CRUMBS, "gamma": 0, "along": "tensor"},
        [0] * 10,
        [ROW],
        [0] * 8 + [9, -10],
    ),
    "breadcrumbs, half of everything twice": (
        "breadcrumbs",
        {**CRUMBS, "scale": None},
        [0] * 10,
        [ROW, ROW],
        [0] * 7 + [-4.8, 5.4, 0],
    ),
    "breadcrumbs, more outliers than the density leaves": (
        "breadcrumbs",
        {"density": 0.8, "gamma": 0.9, "scale": 1, "along": "tensor"},
        [0] * 5,
        [[1, 2, 3, 4, 5]],
        [1, 2, 3, 4, 0],
    ),
    "breadcrumbs_ties, the elected sign": (
        "breadcrumbs_ties",
        {"density": 1, "gamma": 0, "scale": 1},
        [0] * 3,
        [[4, -1, 1], [-2, 5, 2]],
        [4, 5, 3],
    ),
    # Variances 1, 16, 0: two thirds of two varying elements is the one with 16; energies there are equal.
    "sce, half selected": ("sce", {"density": 0.5}, [0] * 3, [[1, 4, 0], [3, -4, 0]], [0, 4, 0]),
    # Energies 17 and 25, shares 0.405 and 0.595: (0.405 + 3 · 0.595) / 1 = 2.190; the sum of 4 and −4 counts as +.
    "sce, everything": ("sce", {}, [0] * 3, [[1, 4, 0], [3, -4, 0]], [17 / 42 + 3 * 25 / 42, 4, 0]),
    "sce, a minority sign is erased": ("sce", {}, [1, 1], [[3, 1], [-1, 1]], [4, 2]),
    "cabs, two of four, no overlap": ("cabs", TWO_OF_FOUR, [0] * 8, [A, B], [0.5, 0.4, 0.3, 0.1, 0.7, 0.9, -0.8, 0.3]),
    "cabs, weights": (
        "cabs",
        {**TWO_OF_FOUR, "weights": [1, 2]},
        [0] * 8,
        [A, B],
        [0.5, 0.8, 0.3, 0.2, 1.4, 0.9, -0.8, 0.6],
    ),
    "cabs, the end keeps its share": ("cabs", TWO_OF_FOUR, [0] * 5, [[4, 3, 2, 1, 9]], [4, 3, 0, 0, 9]),
    "cabs, the order matters": (
        "cabs",
        {"keep": 1, "of": 2},
        [0] * 2,
        [[1, 2], [1, 3]],
        [1, 2],
    ),
    "cabs, blocks of three": ("cabs", {"keep": 1, "of": 3}, [0] * 4, [[1, -3, 2, 5]], [0, -3, 0, 5]),
    "pcb, half of the scores": (
        "pcb",
        {"density": 0.5, "scale": 1},
        [0] * 4,
        [[3, -1, 2, 0], [1, 2, -4, 1]],
        [2, 0, -2, 0],
    ),
    "neuromerging, along and across": (
        "neuromerging",
        {"density": 1, "along": 1, "across": 1},
        [[3, 4]],
        [[[1, 2]]],
        [[4, 6]],
    ),
    "neuromerging, along only": (
        "neuromerging",
        {"density": 1, "along": 1, "across": 0},
        [[3, 4]],
        [[[1, 2]]],
        [[4.32, 5.76]],
    ),
    "neuromerging, across only": (
        "neuromerging",
        {"density": 1, "along": 0, "across": 1},
        [[3, 4]],
        [[[1, 2]]],
        [[2.68, 4.24]],
    ),
    # Elected means of a vector: (1 + 2 + 3) / 3, and so on.
    "neuromerging, a vector": (
        "neuromerging",
        {"density": 1, "across": 1},
        [0] * 3,
        [[1, -2, 0], [2, 1, 0], [3, -3, 1]],
        [2, -2.5, 1],
    ),
    # Two of four kept: 7 of 10 in magnitude, so σ = 0.3 and the rest counts 1 / 0.7 times.
    "neuromerging, amplified by what trimming took": (
        "neuromerging",
        {"density": 0.25},
        [0] * 4,
        [[4, 3, 2, 1]],
        [4 / 0.7, 3 / 0.7, 0, 0],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_merge_equals_the_numbers_computed_by_hand(example, check):
    check(*example)


def test_cabs_never_uses_an_element_twice():
    taus = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    merged = get("cabs").bind({"keep": 3, "of": 32}).merge(torch.zeros(1000), taus)
    source = [(merged == tau).nonzero().flatten().tolist() for tau in taus]
    assert sorted(chain(*source)) == merged.nonzero().flatten().tolist()
    assert [len(places) for places in source] == [31 * 3 + 1] * 3
    assert torch.equal(keep_of_blocks(taus[0], 3, 32).nonzero().flatten(), torch.tensor(source[0]))


def test_della_keeps_by_rank():
    probabilities = keep_probability(torch.tensor([0.1, -0.4, 0.2, 0.3]), 0.7, 0.14)
    assert probabilities.tolist() == pytest.approx([0.56, 0.84, 0.56 + 0.28 / 3, 0.56 + 0.56 / 3])
    assert keep_probability(torch.tensor([[5.0], [1.0]]), 0.7, 0.14).tolist() == [[pytest.approx(0.7)]] * 2
    assert float(keep_probability(torch.tensor(2.0), 0.7, 0.14)) == pytest.approx(0.7)


class Drawn(Context):
    """A context whose draws are given."""

    def bernoulli(self, method, expert, p, like):
        return torch.tensor([1.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("method", "params"), [("della_linear", {"density": 0.5, "epsilon": 0}), ("dare", {"drop": 0.5})]
)
@pytest.mark.parametrize(("rescale", "expected"), [("probability", [8, 0, 2, 0]), ("l1", [6.4, 0, 1.6, 0])])
def test_what_is_left_is_divided_by_its_probability_or_matched_in_magnitude(method, params, rescale, expected):
    bound = get(method).bind({**params, "scale": 1, "rescale": rescale})
    base, taus, context = torch.zeros(4), torch.tensor([[4.0, 2.0, 1.0, 1.0]]), Drawn("w", (4,), ("a",))
    survey = bound.survey(1)
    if survey is not None:
        survey.observe(context, base, taus)
        survey.finish_pass()
    assert bound(base, taus, context, survey).tolist() == pytest.approx(expected)


def test_della_is_unbiased():
    tau = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    bound, seeds = get("della_linear").bind({"density": 0.5, "epsilon": 0.2, "scale": 1}), 1000
    draws = torch.stack([bound.merge(torch.zeros(4), tau, seed=seed) for seed in range(seeds)])
    p = keep_probability(tau[0], 0.5, 0.2)
    assert ((draws.mean(0) - tau[0]).abs() < 4 * (tau[0] ** 2 * (1 - p) / p / seeds).sqrt()).all()


def test_rankmean_ranks_layers_over_the_model():
    from supermerge.assemble import merge

    # Changes per layer 0.5, 0.1, 0.9 and 0.2, 0.3, 0.1: ranks (2, 1, 3) and (2, 3, 1), shares 0.5, 0.25, 0.75.
    base = {**{f"layers.{i}.w": torch.zeros(2) for i in range(3)}, "head": torch.zeros(2)}
    first = {f"layers.{i}.w": torch.tensor([change, 0.0]) for i, change in enumerate((0.5, 0.1, 0.9))}
    second = {f"layers.{i}.w": torch.tensor([0.0, change]) for i, change in enumerate((0.2, 0.3, 0.1))}
    experts = [{**first, "head": torch.tensor([1.0, 0.0])}, {**second, "head": torch.tensor([0.0, 1.0])}]
    merged = merge(base, experts, "rankmean")
    assert merged["layers.0.w"].tolist() == pytest.approx([0.25, 0.1])
    assert merged["layers.1.w"].tolist() == pytest.approx([0.025, 0.225])
    assert merged["layers.2.w"].tolist() == pytest.approx([0.675, 0.025])
    assert merged["head"].tolist() == [0.5, 0.5]
    assert merge(base, experts, "rankmean", per="tensor")["layers.1.w"].tolist() == pytest.approx([0.1 / 4, 0.9 / 4])


def test_awd_finds_the_shared_vector():
    taus = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    merged = get("awd").bind({"scale": 1}).merge(torch.zeros(2), taus)
    # Σ τ − 2 δ with δ = (0.5054, 0.5054) after 300 steps.
    assert merged.tolist() == pytest.approx([1.5 - 2 * 0.5054] * 2, abs=2e-4)
    delta = (taus.sum(0) - merged) / 2
    assert float(delta.norm()) == pytest.approx(0.715, abs=1e-3)
    assert float(torch.cosine_similarity(taus[0], taus[1], dim=0)) == pytest.approx(0.8)
    assert abs(float(torch.cosine_similarity(*(taus - delta), dim=0))) == pytest.approx(0.022, abs=1e-3)


def test_awd_equals_gradient_descent_in_the_full_space():
    taus = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    delta = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        rest = taus - delta
        pairs = [(0, 1), (0, 2), (1, 2)]
        cosines = [torch.cosine_similarity(rest[i], rest[j], dim=0).abs() for i, j in pairs]
        loss = sum(cosines) / 3 + (0.1 * delta.norm() if delta.detach().any() else 0)
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta - 0.05 * gradient).detach().requires_grad_()
    merged = get("awd").bind({"scale": 1, "rate": 0.05, "steps": 30}).merge(torch.zeros(20), taus.float())
    assert torch.allclose(merged.double(), (taus - delta).sum(0).detach(), atol=1e-5)


def test_awd_leaves_orthogonal_task_vectors_alone():
    taus = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert torch.equal(
        get("awd").bind().merge(torch.zeros(2), taus), get("task_arithmetic").bind().merge(torch.zeros(2), taus)
    )


def test_neuromerging_of_orthogonal_changes_across_keeps_both():
    base = torch.tensor([[0.0, 0.0, 1.0]])
    taus = torch.tensor([[[2.0, 0.0, 5.0]], [[0.0, 3.0, 0.0]]])
    merged = get("neuromerging").bind({"density": 1, "across": 1}).merge(base, taus)
    assert torch.allclose(merged, torch.tensor([[2.0, 3.0, 1.0]]), atol=1e-6)


def test_neuromerging_of_opposite_changes_across_keeps_the_base():
    base = torch.tensor([[0.0, 0.0, 1.0]])
    taus = torch.tensor([[[2.0, 1.0, 0.0]], [[-2.0, -1.0, 0.0]]])
    assert torch.equal(get("neuromerging").bind({"density": 1, "across": 1}).merge(base, taus), base)
