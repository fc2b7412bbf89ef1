from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supermerge.methods.survey import Selection, nth_largest


@given(
    values=st.lists(st.floats(0, 2.0**100, width=32) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=200),
    data=st.data(),
)
@settings(deadline=None, max_examples=50)
def test_the_nth_largest_is_exact(values, data):
    wanted = data.draw(st.integers(1, len(values)))
    stream = torch.tensor(values, dtype=torch.float32)
    assert nth_largest(stream, wanted) == stream.sort(descending=True).values[wanted - 1].item()


@given(seed=st.integers(0, 1000), cut=st.integers(1, 99))
@settings(deadline=None, max_examples=20)
def test_pieces_in_any_order_give_the_same(seed, cut):
    values = torch.rand(100, generator=torch.Generator().manual_seed(seed))
    selection = Selection(30)
    again = True
    while again:
        selection.observe(values[cut:])
        selection.observe(values[:cut])
        again = selection.finish_pass()
    assert selection.value == nth_largest(values, 30)


def test_nothing_and_everything():
    values = torch.tensor([3.0, 1.0, 2.0])
    assert nth_largest(values, 0) == float("inf")
    assert nth_largest(values, 3) == 1.0
    assert nth_largest(values, 4) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_selected_in_fp32(dtype):
    assert nth_largest(torch.tensor([1.5, 0.25, 3.0], dtype=dtype), 2) == 1.5
