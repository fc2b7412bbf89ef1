from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from supermerge.methods.ranking import ranks

DRAW = torch.Generator().manual_seed(0)


def reference(rows: Tensor) -> Tensor:
    order = np.argsort(rows.abs().numpy(), axis=1, kind="stable")
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.arange(rows.shape[1])[None], axis=1)
    return torch.from_numpy(found).float()


def normal(n: int) -> Tensor:
    return torch.randn(max(2, 3000 // n), n, generator=DRAW)


def with_outlier(n: int) -> Tensor:
    rows = normal(n)
    rows[:, 0] = 1e6
    return rows


ROWS = {
    "normal": normal,
    "many equal": lambda n: (normal(n) * 4).round(),
    "zeros": lambda n: torch.zeros(2, n),
    "one outlier": with_outlier,
    "differences of bf16": lambda n: normal(n).bfloat16().float() - normal(n).bfloat16().float(),
    "near the largest": lambda n: normal(n).clamp(-3, 3) * 1e38,
    "subnormal": lambda n: normal(n) * 1e-42,
    "falling": lambda n: torch.arange(n, 0, -1).expand(2, n) / n,
}


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000, 1024, 70_000])
@pytest.mark.parametrize("kind", ROWS)
def test_ranks_are_those_of_a_stable_sort(kind: str, n: int) -> None:
    rows = ROWS[kind](n)
    assert torch.equal(ranks(rows), reference(rows))


def test_more_rows_than_are_ranked_at_once() -> None:
    rows = torch.randn(3000, 50, generator=DRAW)
    assert torch.equal(ranks(rows), reference(rows))
