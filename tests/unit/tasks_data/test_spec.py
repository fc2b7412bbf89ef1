from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from supermerge.tasks import TaskSpec
from supermerge.tasks.spec import METRIC_NAMES, METRICS, closest


def test_defaults() -> None:
    spec = TaskSpec(type="text-classification", expert="news", validation="v.jsonl")
    assert (spec.text, spec.label, spec.metric) == ("text", "label", "accuracy")
    assert (spec.held_back, spec.weight, spec.batch_size, spec.max_length) == (0.25, 1.0, 8, 128)
    assert (spec.head, spec.pooling, spec.labels) == ("expert", None, None)
    assert spec.is_classification
    assert not spec.is_generation


@pytest.mark.parametrize(
    ("kind", "columns", "metric"),
    [
        ("text-classification", {"text": "text", "label": "label"}, "accuracy"),
        ("image-classification", {"image": "image", "label": "label"}, "accuracy"),
        ("causal-lm", {"prompt": "prompt", "target": "target"}, "perplexity"),
        ("seq2seq", {"prompt": "prompt", "target": "target"}, "exact_match"),
        ("regression", {"text": "text", "label": "label"}, "pearson"),
    ],
)
def test_columns_and_metric_follow_from_the_type(kind: Any, columns: dict[str, str], metric: str) -> None:
    spec = TaskSpec(type=kind, expert="e", test="t.csv")
    found = {name: getattr(spec, name) for name in ("text", "image", "label", "prompt", "target")}
    assert {name: column for name, column in found.items() if column} == columns
    assert spec.metric == metric


def test_named_columns_replace_defaults() -> None:
    plain = TaskSpec(type="causal-lm", expert="e", test="t", target="body")
    assert (plain.prompt, plain.target) == (None, "body")
    image = TaskSpec(type="regression", expert="e", test="t", image="photo")
    assert (image.text, image.image) == (None, "photo")
    pair = TaskSpec.model_validate({"type": "regression", "expert": "e", "test": "t", "text": ["a", "b"]})
    assert pair.text == ("a", "b")
    assert pair.text_columns == ("a", "b")
    assert plain.text_columns == ()


def test_a_written_spec_reads_back() -> None:
    spec = TaskSpec(type="image-classification", expert="e", test="t", labels=("a", "b"), pooling="cls")
    assert TaskSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert TaskSpec.model_validate_json(spec.model_dump_json()) == spec


def test_frozen() -> None:
    spec = TaskSpec(type="seq2seq", expert="e", test="t")
    with pytest.raises(ValidationError, match="frozen"):
        spec.expert = "other"


BAD = [
    ({"type": "text-clasification"}, "type", "'text-classification'"),
    ({"metrik": "mcc"}, "metrik", "Extra inputs are not permitted"),
    ({"expert": None}, "expert", "Field required"),
    ({"metric": "acuracy"}, "", "unknown metric 'acuracy'; did you mean 'accuracy'?"),
    ({"metric": "zzz"}, "", "unknown metric 'zzz'; known: accuracy, macro_f1, mcc, perplexity, exact_match, pearson"),
    (
        {"metric": "pearson"},
        "",
        "metric 'pearson' does not fit a text-classification task; use accuracy or macro_f1 or mcc",
    ),
    ({"prompt": "q"}, "", "a text-classification task does not read 'prompt'; it reads text, label"),
    ({"text": ["a", "b", "c"]}, "text", "expected a column name or two, [premise, hypothesis]; found ['a', 'b', 'c']"),
    ({"text": 3}, "text", "expected a column name or two, [premise, hypothesis]; found 3"),
    ({"type": "regression", "text": "a", "image": "b"}, "", "a regression task reads 'text' or 'image', not both"),
    (
        {"type": "seq2seq", "labels": ["a", "b"]},
        "",
        "'labels' names the classes of a classification task; this one is seq2seq",
    ),
    ({"labels": ["a"]}, "labels", "expected the names of at least two classes; found 1"),
    ({"labels": ["a", "b", "a"]}, "labels", "class 'a' is listed twice"),
    ({"held_back": 1.0}, "held_back", "less than 1"),
    ({"held_back": -0.1}, "held_back", "greater than or equal to 0"),
    ({"weight": 0.0}, "weight", "greater than 0"),
    ({"weight": float("inf")}, "weight", "finite"),
    ({"batch_size": 0}, "batch_size", "greater than or equal to 1"),
    ({"max_length": 0}, "max_length", "greater than or equal to 1"),
    ({"pooling": "max"}, "pooling", "'cls', 'mean' or 'last'"),
    ({"head": "zero-shot"}, "", "head 'zero-shot' is for image-classification tasks; this one is text-classification"),
    ({"type": "image-classification", "head": "zero-shot"}, "", "head 'zero-shot' and 'embeddings'"),
    ({"type": "image-classification", "embeddings": "e.safetensors"}, "", "head 'zero-shot' and 'embeddings'"),
    ({"type": "custom", "metric": "mcc"}, "", "type 'custom' and 'entry_point' (package.module:name) go together"),
    ({"entry_point": "a:b"}, "", "type 'custom' and 'entry_point' (package.module:name) go together"),
    (
        {"type": "custom", "metric": "mcc", "entry_point": "a.b"},
        "",
        "'entry_point' is written package.module:name; found 'a.b'",
    ),
    ({"type": "custom", "entry_point": "a:b"}, "", "a custom task needs a 'metric', one of accuracy"),
    ({"test": None}, "", "a task needs data: 'validation', 'unlabelled' or 'test'"),
]


@pytest.mark.parametrize(("change", "field", "message"), BAD)
def test_refused(change: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskSpec.model_validate({"type": "text-classification", "expert": "e", "test": "t", **change})
    (found,) = caught.value.errors()
    assert ".".join(map(str, found["loc"])) == field
    assert message in found["msg"]


def test_every_type_but_custom_has_metrics() -> None:
    assert set(METRICS) == {"text-classification", "image-classification", "causal-lm", "seq2seq", "regression"}
    assert set(METRIC_NAMES) == {"accuracy", "macro_f1", "mcc", "pearson", "spearman", "perplexity", "exact_match"}


def test_closest() -> None:
    assert closest("macrof1", METRIC_NAMES) == "; did you mean 'macro_f1'?"
    assert closest("q", ("a", "b")) == "; known: a, b"


def test_reading_text_data_needs_no_torch() -> None:
    code = (
        "import sys, supermerge.tasks.data, supermerge.tasks.splits, supermerge.tasks.labels, supermerge.tasks.score;"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
