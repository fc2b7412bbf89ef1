from __future__ import annotations

from typing import Any

import pytest

from supermerge.errors import CheckpointError, DataError, RecipeError
from supermerge.events import Event, subscribed
from supermerge.tasks.labels import class_indices, head_labels, require_classes
from supermerge.tasks.rows import Label, Row


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        ({"id2label": {"1": "pos", "0": "neg"}}, {}, ("neg", "pos")),
        ({"id2label": {0: "neg", 1: "pos"}, "label2id": {"wrong": 0}}, {}, ("neg", "pos")),
        ({"label2id": {"pos": 1, "neg": 0}}, {"count": 2}, ("neg", "pos")),
        ({"num_labels": 3}, {}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({}, {"count": 2}, ("LABEL_0", "LABEL_1")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, {"names": ["a", "b"]}, ("a", "b")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, {"names": ["a", "b", "c"], "count": 3}, ("a", "b", "c")),
        ({}, {"names": ["a", "b"]}, ("a", "b")),
    ],
)
def test_head_labels(config: dict[str, Any], options: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert head_labels(config, **options, where="the head of 'news'") == expected


def test_recipe_labels_must_fit_the_head() -> None:
    with pytest.raises(RecipeError, match=r"^labels: 3 names, but the head of 'news' has 2 outputs$"):
        head_labels({"num_labels": 5}, names=["a", "b", "c"], count=2, where="the head of 'news'")


@pytest.mark.parametrize(
    ("config", "count", "message"),
    [
        ({"num_labels": 3}, 2, "the head: its config names 3 classes, its weights have 2 outputs"),
        ({"id2label": {"0": "a", "1": "a"}}, 2, "the head: its config gives the name 'a' to more than one class"),
        ({}, None, "the head: neither its config nor its weights say how many classes it has"),
        (
            {"id2label": {"0": "a", "2": "b"}},
            None,
            "the head: id2label numbers its classes [0, 2], expected 0, 1, 2, …",
        ),
    ],
)
def test_head_without_usable_labels(config: dict[str, Any], count: int | None, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        head_labels(config, count=count, where="the head")
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("label", "label_name", "names", "expected"),
    [
        ("pos", None, ("neg", "pos"), 1),
        (1, None, ("neg", "pos"), 1),
        ("1", None, ("neg", "pos"), 1),
        ("1", None, ("1", "2"), 0),
        (1, None, ("1", "2"), 1),
        (0, "pos", ("neg", "pos"), 1),
        (0, "pos", ("LABEL_0", "LABEL_1"), 0),
        (2, "2", ("a", "b", "c"), 2),
    ],
)
def test_class_indices(label: Label, label_name: str | None, names: tuple[str, ...], expected: int) -> None:
    row = Row("p:1", label=label, label_name=label_name)
    assert class_indices([row], names, where="the head") == [expected]


@pytest.mark.parametrize(
    ("label", "label_name", "names", "message"),
    [
        ("sprots", None, ("sports", "news"), "label 'sprots' is unknown to the head; did you mean 'sports'?"),
        ("zzz", None, ("sports", "news"), "label 'zzz' is unknown to the head; known: sports, news"),
        (2, None, ("sports", "news"), "label 2 is unknown to the head; it has the classes 0 to 1"),
        (-1, None, ("sports", "news"), "label -1 is unknown to the head; it has the classes 0 to 1"),
        ("2", None, ("sports", "news"), "label '2' is unknown to the head; it has the classes 0 to 1"),
        ("9" * 5000, None, ("a1", "b1"), f"label '{'9' * 5000}' is unknown to the head; known: a1, b1"),
        ("cat", None, ("LABEL_0", "LABEL_1"), "label 'cat' is unknown to the head; it has the classes 0 to 1"),
        (0, "World", ("world", "news"), "label 'World' is unknown to the head; did you mean 'world'?"),
        (None, None, ("a", "b"), "label None is unknown to the head; it has the classes 0 to 1"),
    ],
)
def test_unknown_label(label: Label | None, label_name: str | None, names: tuple[str, ...], message: str) -> None:
    rows = [Row("v.jsonl:1", label=0, label_name=names[0]), Row("v.jsonl:2", label=label, label_name=label_name)]
    with pytest.raises(DataError) as caught:
        class_indices(rows, names, where="the head")
    assert caught.value.message == f"v.jsonl:2: {message}"
    assert caught.value.hint is not None
    assert "labels: [first, second, …]" in caught.value.hint


def test_single_class() -> None:
    with pytest.raises(DataError) as caught:
        require_classes([1, 1, 1], 4, where="v.jsonl")
    assert caught.value.message == "v.jsonl: all 3 examples have the same class; learning needs at least two"


def test_fewer_examples_than_classes_is_a_warning() -> None:
    seen: list[Event] = []
    with subscribed(seen.append):
        require_classes([0, 1, 1], 4, where="v.jsonl")
        require_classes([0, 1, 1], 3, where="v.jsonl")
    assert [(event.kind, event.fields) for event in seen] == [
        ("warning", {"message": "v.jsonl: 3 examples for 4 classes; some are never seen"})
    ]
