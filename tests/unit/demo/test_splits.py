from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from supermerge.demo.sources.corpus import Corpus, Example
from supermerge.demo.splits import Sizes, split, write_jsonl


def _corpus(counts: dict[str, int]) -> Corpus:
    train = [Example(f"{label} {number}", label) for label, count in counts.items() for number in range(count)]
    return Corpus(tuple(train), (Example("t1", "a"), Example("t2", "b"), Example("t3", "b")))


def test_the_parts_are_disjoint_and_of_the_sizes_asked_for() -> None:
    parts = split(_corpus({"a": 60, "b": 40}), Sizes(train=50, validation=32, unlabelled=10, test=2))
    assert [len(part) for part in (parts.train, parts.validation, parts.unlabelled, parts.test)] == [50, 32, 10, 2]
    assert len({*parts.train, *parts.validation, *parts.unlabelled, *parts.test}) == 94
    assert parts.labels == ("a", "b")


def test_validation_takes_the_classes_in_turn_the_commonest_first() -> None:
    parts = split(_corpus({"rare": 1, "a": 50, "b": 20}), Sizes(train=10, validation=6))
    assert [example.label for example in parts.validation] == ["a", "b", "rare", "a", "b", "a"]
    uneven = split(
        _corpus({label: number for number, label in enumerate("abcdef", start=2)}), Sizes(train=1, validation=3)
    )
    assert Counter(example.label for example in uneven.validation) == {"f": 1, "e": 1, "d": 1}


def test_json_lines_with_and_without_labels(tmp_path: Path) -> None:
    examples = [Example("é “x”", "a"), Example("y", "b")]
    write_jsonl(tmp_path / "labelled.jsonl", examples)
    write_jsonl(tmp_path / "raw.jsonl", examples, labelled=False)
    lines = (tmp_path / "labelled.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "é “x”", "label": "a"}, {"text": "y", "label": "b"}]
    assert (tmp_path / "raw.jsonl").read_text(encoding="utf-8") == '{"text": "é “x”"}\n{"text": "y"}\n'
