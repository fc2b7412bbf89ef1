"""The four disjoint parts of a demo task: training, validation (labelled, few), unlabelled, test."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from supermerge.demo.sources.corpus import Corpus, Example


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many examples each part gets at most."""

    train: int
    validation: int = 32
    unlabelled: int = 256
    test: int = 400


@dataclass(frozen=True, slots=True)
class Splits:
    """Disjoint examples; the expert sees `train` only."""

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    unlabelled: tuple[Example, ...]
    test: tuple[Example, ...]


def split(corpus: Corpus, sizes: Sizes) -> Splits:
    """Cut a (shuffled) corpus. Validation takes the classes in turn, the commonest first, so that few examples show
    as many classes as they can; the other parts keep the corpus's own share of each class."""
    validation = _in_turn(corpus.train, sizes.validation)
    chosen = set(validation)
    rest = tuple(example for example in corpus.train if example not in chosen)
    return Splits(
        labels=corpus.labels,
        train=rest[: sizes.train],
        validation=validation,
        unlabelled=rest[sizes.train : sizes.train + sizes.unlabelled],
        test=corpus.test[: sizes.test],
    )


def _in_turn(examples: Iterable[Example], number: int) -> tuple[Example, ...]:
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    classes = sorted(by_label.values(), key=len, reverse=True)
    rounds = max(map(len, classes), default=0)
    turns = [members[turn] for turn in range(rounds) for members in classes if turn < len(members)]
    return tuple(turns[:number])


def write_jsonl(path: Path, examples: Iterable[Example], *, labelled: bool = True) -> None:
    """One JSON object per line: `text`, and `label` unless `labelled` is False."""
    rows = (example._asdict() if labelled else {"text": example.text} for example in examples)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
