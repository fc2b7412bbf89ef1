"""What every reader gives: labelled texts, split into train and test without a text on both sides."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Example(NamedTuple):
    """One labelled text; white space is folded."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Labelled texts in a shuffled, reproducible order; no text occurs twice."""

    train: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes met in training, sorted: a class's index is its place here."""
        return tuple(sorted({example.label for example in self.train}))

    @classmethod
    def of(cls, train: Iterable[tuple[str, str]], test: Iterable[tuple[str, str]]) -> Corpus:
        """From the source's own split; a test text that is also in train is dropped, as are empty ones."""
        kept = _cleaned(train)
        seen = {example.text for example in kept}
        classes = {example.label for example in kept}
        unseen = [one for one in _cleaned(test) if one.text not in seen and one.label in classes]
        return cls(tuple(kept), tuple(unseen))

    @classmethod
    def cut(cls, rows: Iterable[tuple[str, str]], test: int) -> Corpus:
        """From a source without a split: `test` texts drawn at random, but at most a quarter, are for testing."""
        kept = _cleaned(rows)
        size = min(test, len(kept) // 4)
        return cls(tuple(kept[size:]), tuple(kept[:size]))


def _cleaned(rows: Iterable[tuple[str, str]]) -> list[Example]:
    by_text: dict[str, Example] = {}
    for text, label in rows:
        folded = " ".join(text.split())
        if folded:
            by_text.setdefault(folded, Example(folded, label))
    examples = list(by_text.values())
    random.Random(0).shuffle(examples)
    return examples
