"""Hand-computed merges for low-rank experts, and layer by layer: knots, core_space, larv."""

from __future__ import annotations

import math

import pytest
import torch

from supermerge.assemble import merge
from supermerge.methods import get
from supermerge.methods.core_space import common_bases
from supermerge.methods.larv import conflict, depth, effective_rank
from supermerge.methods.spectral import svd


def diag(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float32)).tolist()


ZERO, ZERO4 = diag(0, 0), diag(0, 0, 0, 0)
WHOLE = {"density": 1, "scale": 1}
# Columns (1, 1) and (½, −½): orthogonal, so that nothing is in conflict in the common basis.
ACROSS = [[[1, 0], [1, 0]], [[0.5, 0], [-0.5, 0]]]

EXAMPLES = {
    "knots, one expert": ("knots", WHOLE, diag(1, 1), [[[1, 2], [3, 4]]], [[2, 2], [3, 5]]),
    "knots, orthogonal experts add up": ("knots", WHOLE, ZERO, [diag(2, 0), diag(0, 3)], diag(2, 3)),
    "knots, no conflict in the common basis": ("knots", WHOLE, ZERO, ACROSS, [[1.5, 0], [0.5, 0]]),
    "knots, the elected sign": ("knots", WHOLE, ZERO, [diag(2, 0), diag(-1, 0)], diag(2, 0)),
    "knots, agreement is averaged": ("knots", WHOLE, ZERO, [diag(2, 0), diag(1, 0)], diag(1.5, 0)),
    "knots, opposite experts cancel": ("knots", WHOLE, ZERO, [diag(2, 0), diag(-2, 0)], ZERO),
    "knots, only the largest": ("knots", {"density": 0.25, "scale": 1}, ZERO, [diag(3, 1)], diag(3, 0)),
    "knots, scale": ("knots", {"density": 1}, ZERO, [diag(2, 0), diag(0, 3)], diag(1.2, 1.8)),
    "knots, nothing dropped": ("knots", {**WHOLE, "merge": "dare_ties"}, ZERO, ACROSS, [[1.5, 0], [0.5, 0]]),
    "knots, vectors are averaged": ("knots", {"scale": 1}, [1, 1], [[1, 0], [0, 3]], [1.5, 2.5]),
    "core_space, one expert": ("core_space", {}, diag(1, 1), [[[1, 2], [3, 4]]], [[2, 2], [3, 5]]),
    "core_space, orthogonal experts add up": (
        "core_space",
        {},
        ZERO4,
        [diag(0, 2, 0, 0), diag(0, 0, 0, 3)],
        diag(0, 2, 0, 3),
    ),
    # The mean of two singular values, 4 and 2, of a core of 2 × 2; over all four directions it would be 1.5.
    "core_space, iso_c": (
        "core_space",
        {"merge": "iso_c"},
        ZERO4,
        [diag(4, 0, 0, 0), diag(0, 2, 0, 0)],
        diag(3, 3, 0, 0),
    ),
    "core_space, ties": ("core_space", {**WHOLE, "merge": "ties"}, ZERO, ACROSS, [[1.5, 0], [0.5, 0]]),
    "core_space, vectors are averaged": ("core_space", {"scale": 2}, [1, 1], [[1, 0], [0, 3]], [2, 4]),
    "larv, outside layers the merge as it is": ("larv", {"merge": "sum"}, ZERO, [diag(1, 2), diag(3, 0)], diag(4, 2)),
    "larv, iso_c outside layers": ("larv", {}, ZERO, [diag(4, 0), diag(0, 2)], diag(3, 3)),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_merge_equals_the_numbers_computed_by_hand(example, check):
    check(*example, tolerance=2e-6)


def low_rank(seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    factors = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in [(2, 8, 2), (2, 2, 6)]]
    return factors[0] @ factors[1]


def test_the_core_holds_all_of_the_task_matrices():
    taus = low_rank(0)
    u, v = common_bases([svd(tau) for tau in taus])
    assert (u.shape, v.shape) == ((8, 4), (6, 4))
    for tau in taus:
        assert torch.allclose(u @ (u.T @ tau @ v) @ v.T, tau, atol=1e-9)


def test_the_core_of_full_rank_is_another_basis():
    taus = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    merged = get("core_space").bind().merge(torch.zeros(5, 7), taus)
    assert torch.allclose(merged, get("tsv_m").bind().merge(torch.zeros(5, 7), taus), atol=1e-5)


def test_knots_turns_with_the_rows():
    taus, order = low_rank(1).float(), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    bound = get("knots").bind()
    turned = bound.merge(torch.zeros(8, 6), taus[:, order])
    assert torch.allclose(turned, bound.merge(torch.zeros(8, 6), taus)[order], atol=1e-6)


def test_knots_without_conflict_is_the_sum():
    # TIES changes nothing where every element is one expert's own; the basis alone changes nothing either.
    taus = torch.zeros(2, 6, 6)
    taus[0, :3, :3], taus[1, 3:, 3:] = (torch.randn(3, 3, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    assert torch.allclose(get("knots").bind(WHOLE).merge(torch.zeros(6, 6), taus), taus.sum(0), atol=1e-5)


@pytest.mark.parametrize(
    ("spectrum", "rank"), [((1, 1), 2.0), ((5, 0), 1.0), ((3, 1), math.exp(-0.75 * math.log(0.75)) * 4**0.25)]
)
def test_the_effective_rank_of_a_spectrum(spectrum, rank):
    assert effective_rank(torch.diag(torch.tensor(spectrum, dtype=torch.float64))) == pytest.approx(rank)


def test_conflict_is_how_far_base_and_change_are_from_commuting():
    identity, turn = torch.eye(2, dtype=torch.float64), torch.tensor([[0, 1], [-1, 0]], dtype=torch.float64)
    assert conflict(identity, torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))) == 0
    # Both commutators are 2 turn, of length 2 √2; the lengths of identity and turn are √2.
    assert conflict(identity, turn) == pytest.approx(math.sqrt(2))
    base, tau = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sides = (base @ tau.T - tau @ base.T).norm() + (base.T @ tau - tau.T @ base).norm()
    assert conflict(base, tau) == pytest.approx(float(sides / 2 / base.norm() / tau.norm()))


def test_depth_counts_inside_a_stack():
    layers = {"encoder.layer.0", "encoder.layer.2", "encoder.layer.10", "decoder.layer.0"}
    found = {layer: depth(layer, layers) for layer in layers}
    assert found == {
        "encoder.layer.0": 1 / 3,
        "encoder.layer.2": 2 / 3,
        "encoder.layer.10": 1,
        "decoder.layer.0": 1,
    }


def test_larv_weakens_the_first_third_and_strengthens_the_last():
    names = [f"layer.{i}.weight" for i in range(3)]
    base = {name: number * torch.eye(2) for number, name in enumerate(names, 1)}
    base |= {"layer.2.bias": torch.ones(2), "head": torch.zeros(2)}
    change = torch.diag(torch.tensor([2.0, 1.0]))
    expert = {name: t + (change if t.ndim == 2 else 1) for name, t in base.items()}
    # The same diagnostics everywhere: what is left of the score is √depth.
    merged = merge(base, [expert], "larv", merge="mean")
    for name, factor in zip(names, (0.75, 1, 1.25), strict=True):
        assert torch.allclose(merged[name], base[name] + factor * change)
    assert merged["layer.2.bias"].tolist() == [2.25, 2.25]
    assert merged["head"].tolist() == [1, 1]


def test_larv_prefers_changes_of_low_rank_that_commute_with_the_base():
    base = {f"layer.{i}.weight": torch.eye(2) for i in range(3)}
    changes = [torch.tensor(change) for change in ([[1.0, 0.0], [0, 0]], [[2.0, 0], [0, 1]], [[0, 1.0], [-1, 0]])]
    expert = {name: base[name] + change for name, change in zip(base, changes, strict=True)}
    merged = merge(base, [expert], "larv", merge="sum")
    # Contrasts 2, 1.22 and 1; conflicts 0, 0 and √2, standardised −0.707, −0.707 and 1.414: scores by hand below.
    softplus = [math.log1p(math.exp(x)) for x in (-math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2))]
    rank = math.exp(-0.8 * math.log(0.8) - 0.2 * math.log(0.2))
    scores = [e * math.sqrt(d / 3) / (1 + s) for e, d, s in zip((2, 2 / rank, 1), (1, 2, 3), softplus, strict=True)]
    assert scores == pytest.approx([0.8243, 0.7068, 0.3800], abs=1e-4)
    for name, change, factor in zip(base, changes, (1.25, 1, 0.75), strict=True):
        assert torch.allclose(merged[name], base[name] + factor * change)
