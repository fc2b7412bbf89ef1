from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supermerge.methods.selection import Selection, nth_largest
from supermerge.methods.survey import GramSurvey, Totals


@given(
    values=st.lists(st.floats(0, 2.0**100, width=32) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=200),
    data=st.data(),
)
@settings(deadline=None, max_examples=50)
def test_the_nth_largest_is_exact(values, data):
    wanted = data.draw(st.integers(1, len(values)))
    stream = torch.tensor(values, dtype=torch.float32)
    assert nth_largest(stream, wanted) == stream.sort(descending=True).values[wanted - 1].item()


@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=100), data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_nth_largest_of_signed_numbers_is_exact(values, data):
    wanted = data.draw(st.integers(1, len(values)))
    stream = torch.tensor(values, dtype=torch.float32)
    assert nth_largest(stream, wanted, signed=True) == stream.sort(descending=True).values[wanted - 1].item()


@pytest.mark.parametrize("extreme", [0.0, -0.0, 3.4028234663852886e38, -3.4028234663852886e38, 2.0**-149, -(2.0**-149)])
def test_the_ends_of_the_range_of_fp32_are_found(extreme):
    assert nth_largest(torch.tensor([extreme]), 1, signed=True) == extreme
    assert nth_largest(torch.tensor([extreme]), 1) == abs(extreme)


@given(seed=st.integers(0, 1000), cut=st.integers(1, 99))
@settings(deadline=None, max_examples=20)
def test_pieces_in_any_order_give_the_same(seed, cut):
    values = torch.rand(100, generator=torch.Generator().manual_seed(seed))
    selection = Selection(lambda total: int(0.3 * total))
    again = True
    while again:
        selection.observe(values[cut:])
        selection.observe(values[:cut])
        again = selection.finish_pass()
    assert selection.value == nth_largest(values, 30)


@given(
    seed=st.integers(0, 1000),
    signed=st.booleans(),
    share=st.floats(0, 1),
    sampled=st.sampled_from(["every tenth", "other numbers", "one", "zeros"]),
)
@settings(deadline=None, max_examples=60)
def test_a_preview_changes_nothing_but_the_number_of_passes(seed, signed, share, sampled):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(seed))
    sample = {"every tenth": values[::10], "other numbers": values * 100, "one": values[:1], "zeros": values * 0}[
        sampled
    ]
    selection, passes = Selection(lambda total: int(share * total), signed=signed), 0
    selection.preview(sample, 1000 / len(sample))
    again = True
    while again:
        selection.observe(values[:300])
        selection.observe(values[300:])
        again, passes = selection.finish_pass(), passes + 1
    assert selection.value == nth_largest(values, int(share * 1000), signed=signed)
    assert passes <= 3


def test_a_good_preview_saves_a_pass():
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    selection = Selection(lambda total: int(0.2 * total))
    selection.preview(values[::16], 16)
    selection.observe(values)
    assert not selection.finish_pass()
    assert selection.value == values.abs().sort(descending=True).values[19_999].item()


def test_nothing_and_everything():
    values = torch.tensor([3.0, 1.0, 2.0])
    assert nth_largest(values, 0) == float("inf")
    assert nth_largest(values, 3) == 1.0
    assert nth_largest(values, 4) == 0.0
    assert nth_largest(values, 4, signed=True) == float("-inf")
    assert nth_largest(torch.zeros(0), 1) == 0.0


def test_totals_do_not_depend_on_the_order():
    forward, backward = Totals(), Totals()
    terms = [1e16, 1.0, -1e16, 1e-3]
    for one, other in zip(terms, reversed(terms), strict=True):
        forward.add("a", one)
        backward.add("a", other)
    assert forward.of("a") == backward.of("a") == 1.001
    assert forward.of("b") == 0


def test_the_gram_survey_gives_inner_products():
    survey = GramSurvey(2)
    base, taus = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    survey.observe(None, base[:1], taus[:, :1])
    survey.observe(None, base[1:], taus[:, 1:])
    assert not survey.finish_pass()
    assert survey.gram.tolist() == [[5, 1, 5], [1, 1, 3], [5, 3, 10]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_selected_in_fp32(dtype):
    assert nth_largest(torch.tensor([1.5, 0.25, 3.0], dtype=dtype), 2) == 1.5
