"""The five disjoint parts of a task, by the hash of the content: the same text is in the same part of every task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from suites.items import Item

# Shares of what is not for testing; the rest is for training.
_SHARES = {"development": 0.08, "pool": 0.12, "unlabelled": 0.16}
_TEST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many items each part gets at most."""

    train: int = 2000
    development: int = 256
    pool: int = 768
    unlabelled: int = 512
    test: int = 1000


def parts(items: Iterable[Item], sizes: Sizes) -> dict[str, list[Item]]:
    """`train`, `development`, `pool` (validation draws come from it), `unlabelled` and `test`, each in a random order.

    Of equal contents the first is kept, test before train: no content is in two parts. A quarter of a source without
    a split of its own is for testing.
    """
    kept: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: not item.test):
        kept.setdefault(item.digest, item)
    found: dict[str, list[Item]] = {"train": [], "development": [], "pool": [], "unlabelled": [], "test": []}
    for digest, item in sorted(kept.items(), key=lambda one: _number(f"order/{one[0]}")):
        found[_part(item, item.group or digest)].append(item)
    # Classes that no expert learns are nowhere: the head has no output for them.
    classes = {item.label for item in found["train"][: sizes.train]}
    return {
        name: [item for item in members if item.label in classes][: getattr(sizes, name)]
        for name, members in found.items()
    }


def _part(item: Item, group: str) -> str:
    if item.test or (item.test is None and _number(f"test/{group}") < _TEST_SHARE):
        return "test"
    place, bound = _number(f"part/{group}"), 0.0
    for name, share in _SHARES.items():
        bound += share
        if place < bound:
            return name
    return "train"


def _number(key: str) -> float:
    """In [0, 1), from a hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
