from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermerge.sizes import parse_size, write_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16 * 10**9),
        ("16 GiB", 16 * 2**30),
        ("1.5gb", 1_500_000_000),
        (".5 KiB", 512),
        ("1000", 1000),
        (1000, 1000),
        ("7B", 7),
        (" 2TB ", 2 * 10**12),
    ],
)
def test_parse(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "16 gigabytes", "-1GB", "0", "1e3", "1,5GB", True, "1 G B"])
def test_refuses(text: str | int) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=10**18))
def test_written_size_reads_back(size: int) -> None:
    assert parse_size(write_size(size)) == size


def test_writes_the_largest_unit() -> None:
    assert [write_size(size) for size in (5 * 10**9, 3 * 2**30, 1001)] == ["5GB", "3GiB", "1001B"]
