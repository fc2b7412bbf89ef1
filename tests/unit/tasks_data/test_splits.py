from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supermerge.errors import DataError
from supermerge.tasks.rows import Label, Row
from supermerge.tasks.splits import check_disjoint, folds, split_held_back, take

labels = st.lists(st.sampled_from(["a", "b", "c", 0, 1]), min_size=2, max_size=60)
seeds = st.integers(min_value=0, max_value=2**63)


def made(found: list[Label]) -> list[Row]:
    return [Row(f"f:{i}", texts=(str(i),), label=label) for i, label in enumerate(found)]


def counts(rows: list[Row]) -> Counter[object]:
    return Counter(row.label for row in rows)


@settings(deadline=None)
@given(labels, st.floats(min_value=0.01, max_value=0.99), seeds)
def test_held_back_is_disjoint_exhaustive_stable_and_stratified(found: list[Label], fraction: float, seed: int) -> None:
    rows = made(found)
    kept, held = split_held_back(rows, fraction, seed)
    assert sorted([*kept, *held], key=lambda row: int(row.texts[0])) == rows
    assert kept
    assert held
    assert len(held) == min(len(rows) - 1, max(1, round(fraction * len(rows))))
    assert (kept, held) == split_held_back(list(rows), fraction, seed)
    assert kept == sorted(kept, key=rows.index)
    total = counts(rows)
    if len(held) <= len(rows) - len(total):
        assert set(counts(kept)) == set(total), "a class lost its last example to the held-back part"
        for label, count in counts(held).items():
            assert count <= total[label] * len(held) / len(rows) + len(total)


def test_held_back_takes_its_share_of_every_class() -> None:
    rows = made(["a"] * 16 + ["b"] * 8 + ["c"] * 8)
    _, held = split_held_back(rows, 0.25, seed=3)
    assert counts(held) == {"a": 4, "b": 2, "c": 2}


def test_fraction_nothing_holds_nothing_back() -> None:
    rows = made(["a"])
    assert split_held_back(rows, 0.0, seed=0) == (rows, [])


def test_seeds_differ() -> None:
    rows = made(["a"] * 50)
    assert split_held_back(rows, 0.5, seed=0) != split_held_back(rows, 0.5, seed=1)
    assert take(rows, 25, seed=0) != take(rows, 25, seed=1)
    assert folds(rows, 2, seed=0) != folds(rows, 2, seed=1)


def test_numbers_are_not_classes() -> None:
    rows = made([i / 7 for i in range(40)])
    kept, held = split_held_back(rows, 0.25, seed=0)
    assert (len(kept), len(held)) == (30, 10)


def test_the_draw_is_the_same_on_every_machine_and_in_every_process() -> None:
    rows = made(["a", "b"] * 8)
    _, held = split_held_back(rows, 0.25, seed=7)
    code = (
        "from supermerge.tasks.rows import Row; from supermerge.tasks.splits import split_held_back;"
        "rows = [Row(f'f:{i}', texts=(str(i),), label='ab'[i % 2]) for i in range(16)];"
        "print([row.texts[0] for row in split_held_back(rows, 0.25, 7)[1]])"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.strip() == str([row.texts[0] for row in held]) == "['0', '6', '13', '15']"


@settings(deadline=None)
@given(labels, seeds, st.data())
def test_folds_hold_every_row_back_once(found: list[Label], seed: int, data: st.DataObject) -> None:
    rows = made(found)
    k = data.draw(st.integers(min_value=2, max_value=len(rows)))
    pairs = folds(rows, k, seed)
    assert len(pairs) == k
    assert Counter(row.place for _, held in pairs for row in held) == dict.fromkeys((row.place for row in rows), 1)
    sizes = [len(held) for _, held in pairs]
    assert max(sizes) - min(sizes) <= 1
    for kept, held in pairs:
        assert sorted([*kept, *held], key=rows.index) == rows
        for label, count in counts(rows).items():
            assert count // k <= counts(held)[label] <= -(-count // k)
    assert pairs == folds(rows, k, seed)


@settings(deadline=None)
@given(labels, seeds, st.data())
def test_take_is_a_stratified_part(found: list[Label], seed: int, data: st.DataObject) -> None:
    rows = made(found)
    n = data.draw(st.integers(min_value=1, max_value=len(rows) + 2))
    taken = take(rows, n, seed)
    assert len(taken) == min(n, len(rows))
    assert taken == [row for row in rows if row in taken]
    assert taken == take(rows, n, seed)
    if n >= len(counts(rows)):
        assert set(counts(taken)) == set(counts(rows))


def test_take_keeps_proportions() -> None:
    assert counts(take(made(["a"] * 60 + ["b"] * 30 + ["c"] * 10), 10, seed=0)) == {"a": 6, "b": 3, "c": 1}
    assert counts(take(made(["a"] * 98 + ["b", "c"]), 10, seed=0)) == {"a": 8, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda rows: split_held_back(rows[:1], 0.25, 0),
            "f:0: 1 example cannot be split into a part to learn from and one to hold back",
        ),
        (lambda rows: folds(rows, 1, 0), "f:0: 3 examples cannot make 1 folds"),
        (lambda rows: folds(rows, 4, 0), "f:0: 3 examples cannot make 4 folds"),
        (lambda rows: folds([], 2, 0), "no examples: 0 examples cannot make 2 folds"),
    ],
)
def test_too_few_examples(call: Callable[[list[Row]], object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        call(made(["a", "b", "c"]))
    assert caught.value.message == message


def test_disjoint() -> None:
    check_disjoint(made(["a", "b"]), [Row("t:1", texts=("other",), label="a")], task="news")


def test_overlap_is_counted_and_shown() -> None:
    test = [Row(f"t:{line}", texts=(str(i),), label="whatever") for line, i in enumerate([9, 3, 2, 1, 0, 2])]
    with pytest.raises(DataError) as caught:
        check_disjoint(made(["a"] * 6), test, task="news")
    assert caught.value.message == (
        "task 'news': 4 of 6 validation examples are also in the test data (f:0 = t:4, f:1 = t:3, f:2 = t:2, …)"
    )
    with pytest.raises(DataError) as caught:
        check_disjoint(made(["a"]), test, task="news")
    assert caught.value.message == ("task 'news': 1 of 1 validation examples are also in the test data (f:0 = t:4)")
