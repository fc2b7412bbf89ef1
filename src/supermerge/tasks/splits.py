"""Seeded, stratified, disjoint parts of a list of rows.

Every draw orders positions by BLAKE3(seed, purpose, position): it depends on nothing but the seed and the order of the
file, on no random generator's version and on no dictionary's order. Parts keep the order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from supermerge.errors import DataError
from supermerge.tasks.rows import Row


def split_held_back(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(kept, held back): about `fraction` of `rows` held back, stratified by label, at least one row in each part.

    A class keeps at least one row as long as other classes can give theirs. `fraction` 0 holds nothing back. Raises
    DataError where there are too few rows to split.
    """
    if fraction == 0:
        return list(rows), []
    if len(rows) < 2:
        raise DataError(
            f"{_first_place(rows)}: {len(rows)} example cannot be split into a part to learn from and one to hold back",
            hint="Give at least two examples, or set held_back: 0.",
        )
    total = min(len(rows) - 1, max(1, round(fraction * len(rows))))
    strata = _strata(rows, seed, "held back")
    highs = [len(stratum) - 1 for stratum in strata]
    if sum(highs) < total:
        highs = [len(stratum) for stratum in strata]
    seats = _apportion([len(stratum) for stratum in strata], total, lows=[0] * len(strata), highs=highs)
    held = {index for stratum, count in zip(strata, seats, strict=True) for index in stratum[:count]}
    return [row for i, row in enumerate(rows) if i not in held], [rows[i] for i in sorted(held)]


def folds(rows: Sequence[Row], k: int, seed: int) -> list[tuple[list[Row], list[Row]]]:
    """k pairs (kept, held back), stratified by label: every row is held back exactly once, sizes differ by at most one.

    Raises DataError where there are fewer than k rows, or k < 2.
    """
    if not 2 <= k <= len(rows):
        raise DataError(f"{_first_place(rows)}: {len(rows)} examples cannot make {k} folds")
    dealt = [index for stratum in _strata(rows, seed, "folds") for index in stratum]
    fold_of = {index: turn % k for turn, index in enumerate(dealt)}
    return [
        (
            [row for i, row in enumerate(rows) if fold_of[i] != fold],
            [row for i, row in enumerate(rows) if fold_of[i] == fold],
        )
        for fold in range(k)
    ]


def take(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """`n` of `rows` (all where there are fewer), in proportion to the labels, but one of each label where n allows."""
    if n >= len(rows):
        return list(rows)
    strata = _strata(rows, seed, "take")
    sizes = [len(stratum) for stratum in strata]
    lows = [1 if n >= len(strata) else 0] * len(strata)
    seats = _apportion(sizes, n, lows=lows, highs=sizes)
    return [rows[i] for i in sorted(i for s, count in zip(strata, seats, strict=True) for i in s[:count])]


def check_disjoint(validation: Sequence[Row], test: Sequence[Row], *, task: str) -> None:
    """Raise DataError where an example of `validation` is also in `test`: same content, whatever its label."""
    in_test = {row.hash: row.place for row in reversed(test)}
    shared = [(row.place, in_test[row.hash]) for row in validation if row.hash in in_test]
    if shared:
        examples = ", ".join(f"{ours} = {theirs}" for ours, theirs in shared[:3])
        raise DataError(
            f"task {task!r}: {len(shared)} of {len(validation)} validation examples are also in the test data"
            f" ({examples}{', …' if len(shared) > 3 else ''})",
            hint="Remove them from one of the two; a score on examples seen while learning says nothing.",
        )


def _strata(rows: Sequence[Row], seed: int, purpose: str) -> list[list[int]]:
    """Positions by label, in drawing order; labels in order of first appearance. Numbers are one stratum."""
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(None if isinstance(row.label, float) else row.label, []).append(index)

    def draw(index: int) -> bytes:
        return blake3(f"{seed}/{purpose}/{index}".encode()).digest()

    return [sorted(group, key=draw) for group in groups.values()]


def _apportion(sizes: Sequence[int], total: int, *, lows: Sequence[int], highs: Sequence[int]) -> list[int]:
    """Seats per stratum, in proportion to `sizes`, within lows and highs, summing to `total` (largest remainder)."""
    quotas = [total * size / sum(sizes) for size in sizes]
    seats = [min(high, max(low, int(quota))) for quota, low, high in zip(quotas, lows, highs, strict=True)]
    while (missing := total - sum(seats)) != 0:
        step = 1 if missing > 0 else -1
        free = [i for i, seat in enumerate(seats) if (seat < highs[i] if step > 0 else seat > lows[i])]
        neediest = max(free, key=lambda i: (step * (quotas[i] - seats[i]), -i))
        seats[neediest] += step
    return seats


def _first_place(rows: Sequence[Row]) -> str:
    return rows[0].place if rows else "no examples"
