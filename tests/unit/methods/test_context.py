from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from supermerge.methods import BLOCK, Context

WHOLE = Context("layer.weight", (3 * BLOCK,), ("news", "spam"), seed=3)


@pytest.mark.parametrize("start", [0, 1, 2, 1000, BLOCK - 1, BLOCK, BLOCK + 7])
@pytest.mark.parametrize("count", [1, 2, BLOCK, BLOCK + 3])
def test_a_piece_has_the_draws_of_its_place(start: int, count: int) -> None:
    drawn = WHOLE.bernoulli("dare", 1, 0.3, torch.empty(3 * BLOCK))
    piece = replace(WHOLE, offset=start).bernoulli("dare", 1, 0.3, torch.empty(count))
    assert torch.equal(piece, drawn[start : start + count])


def test_as_many_ones_as_asked_for() -> None:
    drawn = WHOLE.bernoulli("dare", 0, 0.3, torch.empty(3 * BLOCK))
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.005)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("p", [0.0, 2**-30, 0.1, 1 / 3, 0.5, 1 - 2**-24, 1.0])
def test_a_number_draws_as_a_tensor_of_it(p: float) -> None:
    like = torch.empty(BLOCK + 7)
    assert torch.equal(WHOLE.bernoulli("dare", 0, p, like), WHOLE.bernoulli("dare", 0, torch.full_like(like, p), like))
