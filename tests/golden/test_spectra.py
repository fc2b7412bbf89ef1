"""Hand-computed merges of matrices by their singular values: base, task vectors, parameters, numbers expected."""

from __future__ import annotations

import math

import pytest
import torch

from supermerge.methods import get
from supermerge.methods.doge import adjusted, shared_basis
from supermerge.methods.iso_c import common_rank
from supermerge.methods.spectral import polar, truncated

H = math.sqrt(0.5)


def diag(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float32)).tolist()


ZERO, ZERO3, ZERO4 = diag(0, 0), diag(0, 0, 0), diag(0, 0, 0, 0)
FLAT, UPPER = [[1, 0], [0, 0]], [[1, 1], [0, 0]]
THREE = [diag(6, 0, 0), diag(0, 4, 0), diag(0, 0, 5)]

EXAMPLES = {
    "tsv_m, one expert": ("tsv_m", {}, diag(1, 1), [[[1, 2], [3, 4]]], [[2, 2], [3, 5]]),
    "tsv_m, orthogonal experts add up": ("tsv_m", {}, ZERO, [diag(2, 0), diag(0, 3)], diag(2, 3)),
    "tsv_m, correlated experts are decorrelated": ("tsv_m", {}, ZERO, [diag(2, 0), [[1, 1], [1, 1]]], diag(2, 2)),
    # The stacked vectors are e1, e1: one direction, not a second that an SVD would make up.
    "tsv_m, equal experts count once": ("tsv_m", {}, ZERO, [diag(2, 0), diag(2, 0)], diag(2, 0)),
    "tsv_m, no shared direction": (
        "tsv_m",
        {},
        ZERO4,
        [[[1, 2, 0, 0], [3, 4, 0, 0], [0] * 4, [0] * 4], diag(0, 0, 5, 6)],
        [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 6]],
    ),
    "tsv_m, vectors are averaged": ("tsv_m", {"scale": 2}, [1, 1], [[1, 0], [0, 3]], [2, 4]),
    "iso_c, a flat spectrum": ("iso_c", {}, ZERO, [diag(4, 0), diag(0, 2)], diag(3, 3)),
    "iso_c, the sum 3, 1": ("iso_c", {}, ZERO, [diag(1, 1), diag(2, 0)], diag(2, 2)),
    "iso_c, nothing in directions that do not exist": ("iso_c", {}, ZERO, [[[0, 4], [0, 0]]], [[0, 2], [0, 0]]),
    "iso_c, scale": ("iso_c", {"scale": 1.5}, diag(1, 1), [diag(4, 2)], diag(5.5, 5.5)),
    "iso_cts, everything common is iso_c": ("iso_cts", {"common": 1}, ZERO, [diag(4, 0), diag(0, 2)], diag(3, 3)),
    # Common 8 and 2, own 1 and none of two: σ̄ = 11 / 4 in three directions.
    "iso_cts, half common": (
        "iso_cts",
        {"common": 0.5},
        ZERO4,
        [diag(4, 1, 0, 0), diag(4, 0, 2, 0)],
        diag(2.75, 2.75, 2.75, 0),
    ),
    "cart, orthogonal experts are recovered": ("cart", {"scale": 1}, ZERO3, THREE, diag(6, 4, 5)),
    "cart, everything kept is the average": ("cart", {"density": 1}, ZERO3, THREE, diag(2, 4 / 3, 5 / 3)),
    "cart, two experts are the average": ("cart", {"scale": 7}, ZERO, [[[4, 1], [0, 2]], ZERO], [[2, 0.5], [0, 1]]),
    "cart, everything kept is the average for any scale": (
        "cart",
        {"density": 1, "scale": -5},
        ZERO3,
        THREE,
        diag(2, 4 / 3, 5 / 3),
    ),
    "cart, one expert": ("cart", {}, diag(1, 1), [[[1, 2], [3, 4]]], [[2, 2], [3, 5]]),
    "svc, equal experts are counted once": ("svc", {"scale": 1}, ZERO, [diag(3, 1)] * 4, diag(3, 1)),
    # Absent tasks count alpha: 2 / (1 + 0.1).
    "svc, orthogonal experts": ("svc", {"scale": 1}, ZERO, [diag(4, 0), diag(0, 2)], diag(8 / 1.1, 4 / 1.1)),
    "svc, alpha 1": ("svc", {"scale": 1, "alpha": 1}, ZERO, [diag(4, 0), diag(0, 2)], diag(4, 2)),
    "svc, of iso_c": ("svc", {"scale": 1, "alpha": 1, "merge": "iso_c"}, ZERO, [diag(4, 0), diag(0, 2)], diag(3, 2.4)),
    "svc, of tsv_m": ("svc", {"scale": 1, "alpha": 1, "merge": "tsv_m"}, ZERO, [diag(4, 0), diag(0, 2)], diag(4, 2)),
    "svc, vectors as they are": ("svc", {"scale": 0.5}, [0, 0], [[1, 2], [3, 4]], [2, 3]),
    "dc_merge, one expert": ("dc_merge", {"density": 1}, ZERO, [[[1, 2], [3, 4]]], [[1, 2], [3, 4]]),
    "dc_merge, orthogonal experts add up": ("dc_merge", {}, ZERO, [diag(2, 0), diag(0, 3)], diag(2, 3)),
    "dc_merge, vectors are averaged": ("dc_merge", {}, [0, 0], [[1, 2], [3, 4]], [2, 3]),
    "wudi, the minimum": ("wudi", {"solver": "closed"}, ZERO, [FLAT, UPPER], UPPER),
    "wudi, no steps is the sum": ("wudi", {"steps": 0}, ZERO, [FLAT, UPPER], [[2, 1], [0, 0]]),
    "wudi, one expert": ("wudi", {"solver": "closed"}, diag(1, 1), [[[1, 2], [3, 4]]], [[2, 2], [3, 5]]),
    "wudi, orthogonal rows add up": ("wudi", {"solver": "closed"}, ZERO, [diag(2, 0), diag(0, 3)], diag(2, 3)),
    # Adam's first steps have the length of the rate: 100 · 0.001 towards [[1, 1], [0, 0]].
    "wudi, adam's first steps": (
        "wudi",
        {"steps": 1, "lr": 0.1},
        ZERO,
        [FLAT, UPPER],
        [[1.9, 0.9], [0, 0]],
    ),
    "wudi, vectors keep the base": ("wudi", {}, [1, 1], [[1, 2], [3, 4]], [1, 1]),
    "wudi, vectors averaged": ("wudi", {"rest": "mean"}, [1, 1], [[1, 2], [3, 4]], [3, 4]),
    "swudi, no filter is the minimum": ("swudi", {"time": 1e9}, ZERO, [FLAT, UPPER], UPPER),
    "swudi, no time is the sum": ("swudi", {"time": 1e-12}, ZERO, [FLAT, UPPER], [[2, 1], [0, 0]]),
    # G = diag(1, 0) and diag(0, 1): λ = 1 in both; from [[1, 0], [0, 1]] · 2 towards … nothing changes.
    "swudi, orthogonal rows add up": ("swudi", {}, ZERO, [diag(2, 0), diag(0, 3)], diag(2, 3)),
    # Two equal experts: λ = 2, from 2 τ towards τ by 1 − exp(−2 time).
    "swudi, equal experts": ("swudi", {"time": 0.5}, ZERO, [FLAT, FLAT], [[1 + math.exp(-1), 0], [0, 0]]),
    "doge, no steps: every task at the same length": (
        "doge",
        {"steps": 0, "density": 1},
        [[0, 0]],
        [[[3, 4]], [[0, 2]]],
        [[0.042, 0.056 + 0.07]],
    ),
    "doge, only the largest": ("doge", {"steps": 0, "density": 0.4}, [[0, 0]], [[[3, 4]]], [[0, 0.056]]),
    "doge, vectors keep the base": ("doge", {}, [1, 2], [[3, 4]], [1, 2]),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_merge_equals_the_numbers_computed_by_hand(example, check):
    check(*example, tolerance=2e-6)


def test_iso_cts_shares_the_rest_evenly():
    assert common_rank(768, 8, 0.8) == (616, 19)
    assert common_rank(4, 2, 0.5) == (2, 1)
    assert common_rank(4, 8, 0.8) == (4, 0)


@pytest.mark.parametrize("method", ["iso_c", "iso_cts"])
def test_isotropic_merges_have_a_flat_spectrum_of_the_same_sum(method):
    taus = torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(0))
    spectrum = torch.linalg.svdvals(get(method).bind().merge(torch.zeros(9, 12), taus))
    assert torch.allclose(spectrum, spectrum.mean(), atol=1e-4)
    if method == "iso_c":
        assert float(spectrum.sum()) == pytest.approx(float(torch.linalg.svdvals(taus.sum(0)).sum()), rel=1e-5)


@pytest.mark.parametrize("name", ["model.text_projection", "text_projection.weight"])
def test_excluded_names_are_averaged(name):
    taus = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    for method in ("tsv_m", "iso_c", "iso_cts", "dc_merge"):
        merged = get(method).bind().merge(torch.zeros(4, 4), taus, name=name)
        assert torch.allclose(merged, taus.mean(0), atol=1e-6)


def test_merges_of_low_rank_do_not_depend_on_arbitrary_directions():
    draw = torch.Generator().manual_seed(0)
    factors = [(torch.randn(8, 2, generator=draw), torch.randn(2, 6, generator=draw)) for _ in range(2)]
    taus = torch.stack([a @ b for a, b in factors])
    columns = torch.linalg.qr(torch.cat([a for a, _ in factors], dim=1))[0]
    for method in ("tsv_m", "iso_c", "iso_cts", "dc_merge", "svc"):
        merged = get(method).bind().merge(torch.zeros(8, 6), taus)
        assert torch.allclose(columns @ (columns.T @ merged), merged, atol=1e-5), method
        assert float(merged.norm()) > 0.1, method


@pytest.mark.parametrize(
    ("method", "params", "loss"),
    [("task_arithmetic", {"scale": 1}, 1.5), ("linear", {}, 0.125), ("wudi", {"solver": "closed"}, 0)],
)
def test_wudi_has_the_least_interference(method, params, loss):
    taus = torch.tensor([FLAT, UPPER], dtype=torch.float32)
    apart = (get(method).bind(params).merge(torch.zeros(2, 2), taus) - taus) @ taus.transpose(1, 2)
    found = (apart.square().sum((1, 2)) / taus.square().sum((1, 2))).sum()
    assert float(found) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts", "cart", "svc", "dc_merge", "swudi"])
def test_spectral_merges_turn_with_the_space(method):
    draw = torch.Generator().manual_seed(0)
    taus, turn = torch.randn(3, 6, 9, generator=draw), torch.linalg.qr(torch.randn(6, 6, generator=draw))[0]
    bound, base = get(method).bind(), torch.zeros(6, 9)
    assert torch.allclose(bound.merge(base, turn @ taus), turn @ bound.merge(base, taus), atol=1e-4)


def test_dc_merge_keeps_the_tasks_apart():
    taus = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    parts = truncated(taus, 3)
    u, vh = polar(torch.cat([part.u for part in parts], 1)), polar(torch.cat([part.vh for part in parts]))
    core = u.T @ get("dc_merge").bind({"density": 1}).merge(torch.zeros(6, 8), taus).double() @ vh.T
    assert float(core[:3, 3:].abs().max()) < 1e-6
    assert float(core[3:, :3].abs().max()) < 1e-6
    assert float(core.norm()) > 1


def test_wudi_follows_adam_on_its_loss():
    taus = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(1)).double()
    tau = taus.sum(0).requires_grad_()
    optimiser = torch.optim.Adam([tau], lr=0.01)
    for _ in range(20):
        optimiser.zero_grad()
        apart = (tau - taus) @ taus.transpose(1, 2)
        (apart.square().sum((1, 2)) / taus.square().sum((1, 2))).sum().backward()
        optimiser.step()
    merged = get("wudi").bind({"steps": 20, "lr": 0.01}).merge(torch.zeros(5, 7), taus.float())
    assert torch.allclose(merged.double(), tau.detach(), atol=1e-5)


def test_doge_follows_adam_on_its_loss_outside_the_shared_directions():
    taus = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(1)).double()
    scales, basis = 0.07 / taus.flatten(1).norm(dim=1), shared_basis(taus, 6)
    assert basis.shape == (12, 2)
    delta = torch.zeros(12, 12, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=0.01)
    weights = scales[:, None, None]
    for _ in range(15):
        optimiser.zero_grad()
        merged = (weights * taus).sum(0) + (weights * delta).sum(0)
        (taus * (taus - merged)).sum(2).square().sum().backward()
        delta.grad -= basis @ (basis.T @ delta.grad)
        optimiser.step()
    assert torch.allclose(adjusted(taus, scales, basis, 15, 0.01), delta.detach(), atol=1e-9)


def test_doge_without_a_task_vector_keeps_the_base():
    base = torch.ones(3, 3)
    assert torch.equal(get("doge").bind().merge(base, torch.zeros(2, 3, 3)), base)
