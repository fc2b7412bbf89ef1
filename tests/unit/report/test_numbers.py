from __future__ import annotations

import pytest

from supermerge.report import numbers


@pytest.mark.parametrize(
    ("value", "shown"), [(0.87149, "0.871"), (-0.5, "-0.500"), (9.9994, "9.999"), (12.345, "12.35"), (4321.5, "4,322")]
)
def test_score(value: float, shown: str) -> None:
    assert numbers.score(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185.2, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_seconds(value: float, shown: str) -> None:
    assert numbers.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (912, "912 B"), (999_499, "999 kB"), (999_600, "1 MB"), (90_900_000, "90.9 MB"), (2.5e15, "2500 TB")],
)
def test_size(value: float, shown: str) -> None:
    assert numbers.size(int(value)) == shown
