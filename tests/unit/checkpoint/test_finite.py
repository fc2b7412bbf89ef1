from __future__ import annotations

import pytest
import torch

from supermerge.checkpoint import require_finite
from supermerge.errors import CheckpointError

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_bad_element_is_named(dtype: torch.dtype, bad: float) -> None:
    tensor = torch.ones(3, 4)
    tensor[1, 2] = bad
    tensor[2, 0] = bad
    with pytest.raises(CheckpointError) as caught:
        require_finite(tensor.to(dtype), name="layer.weight", label="experts/news")
    assert caught.value.message == (
        f"experts/news: tensor 'layer.weight' has 2 values that are NaN or infinite, the first, {bad}, at [1, 2]"
    )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((1000,), 3e38),  # its sum overflows
        torch.tensor([3e38, 3e38, -3e38]),
        torch.full((100,), 60000.0, dtype=torch.float16),
        torch.full((4,), 448.0).to(torch.float8_e4m3fn),
        torch.zeros(0),
        torch.tensor(1.0),
        torch.arange(3),
        torch.tensor([True]),
    ],
)
def test_finite_tensors_pass(tensor: torch.Tensor) -> None:
    require_finite(tensor, name="a", label="b")


def test_infinities_that_cancel_are_found() -> None:
    with pytest.raises(CheckpointError, match="2 values"):
        require_finite(torch.tensor([float("inf"), float("-inf")]), name="a", label="b")
