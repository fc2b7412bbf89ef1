"""What a recipe says about one task: its examples, the columns to read, its expert and head, how to score."""

from __future__ import annotations

import difflib
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TaskType = Literal["text-classification", "image-classification", "causal-lm", "seq2seq", "regression", "custom"]
Pooling = Literal["cls", "mean", "last"]

CLASSIFICATION: frozenset[str] = frozenset({"text-classification", "image-classification"})
GENERATION: frozenset[str] = frozenset({"causal-lm", "seq2seq"})

# The metrics that make sense for each type; the first one is its default.
METRICS: dict[str, tuple[str, ...]] = {
    "text-classification": ("accuracy", "macro_f1", "mcc"),
    "image-classification": ("accuracy", "macro_f1", "mcc"),
    "causal-lm": ("perplexity", "exact_match"),
    "seq2seq": ("exact_match", "perplexity"),
    "regression": ("pearson", "spearman"),
}
METRIC_NAMES: tuple[str, ...] = tuple(dict.fromkeys(name for names in METRICS.values() for name in names))

_COLUMNS = ("text", "image", "label", "prompt", "target")
# The columns a type reads where the recipe names none of the same kind.
_DEFAULT_COLUMNS: dict[str, dict[str, str]] = {
    "text-classification": {"text": "text", "label": "label"},
    "image-classification": {"image": "image", "label": "label"},
    "causal-lm": {"prompt": "prompt", "target": "target"},
    "seq2seq": {"prompt": "prompt", "target": "target"},
    "regression": {"text": "text", "label": "label"},
}
_FOREIGN_COLUMNS: dict[str, tuple[str, ...]] = {
    "text-classification": ("image", "prompt", "target"),
    "image-classification": ("text", "prompt", "target"),
    "causal-lm": ("text", "image", "label"),
    "seq2seq": ("text", "image", "label"),
    "regression": ("prompt", "target"),
}


def closest(word: str, words: tuple[str, ...]) -> str:
    """`"; did you mean 'x'?"` where one of `words` is close to `word`, else the list of all of them."""
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(words)}"


class TaskSpec(BaseModel):
    """One task of a recipe.

    `validation`, `unlabelled` and `test` name data: a path (relative to the recipe) or `datasets:ID?split=NAME`, see
    `supermerge.tasks.data`. `text` is a column, or two columns [premise, hypothesis]; `label` holds class indices or
    class names (a number for regression); generation tasks read `prompt` and `target`, and a causal-lm task that names
    only `target` is plain language modelling with an empty prompt. `held_back` is the share of the validation examples
    kept for early stopping. `head` is `expert` (the expert's own), a path, or `zero-shot`, which needs `embeddings`:
    a safetensors file with one text embedding per class, [classes, width]. `entry_point` (`package.module:name`)
    is the code of a `custom` task. Columns and `metric` left out follow from the type, so `metric` is never empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: TaskType
    expert: str = Field(min_length=1)
    text: str | tuple[str, str] | None = None
    image: str | None = None
    label: str | None = None
    prompt: str | None = None
    target: str | None = None
    labels: tuple[str, ...] | None = None
    validation: str | None = None
    unlabelled: str | None = None
    test: str | None = None
    metric: str = ""
    held_back: float = Field(default=0.25, ge=0.0, lt=1.0)
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    batch_size: int = Field(default=8, ge=1)
    max_length: int = Field(default=128, ge=1)
    pooling: Pooling | None = None
    head: str = Field(default="expert", min_length=1)
    embeddings: str | None = None
    entry_point: str | None = None

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The text columns in order: none, one, or two."""
        if self.text is None:
            return ()
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def is_classification(self) -> bool:
        """Whether the label is one of a fixed set of classes."""
        return self.type in CLASSIFICATION

    @property
    def is_generation(self) -> bool:
        """Whether the task reads a prompt and scores a target text."""
        return self.type in GENERATION

    @model_validator(mode="before")
    @classmethod
    def _fill_by_type(cls, given: Any) -> Any:
        """Columns and metric that the recipe leaves out follow from the type."""
        if not isinstance(given, dict) or given.get("type") not in get_args(TaskType):
            return given
        kind: str = given["type"]
        filled: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        defaults = dict(_DEFAULT_COLUMNS.get(kind, {}))
        if kind == "regression" and "image" in filled:
            defaults.pop("text")
        if kind == "causal-lm" and "target" in filled:
            defaults.pop("prompt")
        if kind in METRICS:
            defaults["metric"] = METRICS[kind][0]
        return {**defaults, **filled}

    @field_validator("text", mode="before")
    @classmethod
    def _text_is_one_or_two_columns(cls, text: Any) -> Any:
        if text is None or isinstance(text, str):
            return text
        if isinstance(text, (list, tuple)) and len(text) == 2 and all(isinstance(column, str) for column in text):
            return tuple(text)
        raise ValueError(f"expected a column name or two, [premise, hypothesis]; found {text!r}")

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is None:
            return None
        if len(labels) < 2:
            raise ValueError(f"expected the names of at least two classes; found {len(labels)}")
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(f"class {twice[0]!r} is listed twice")
        return labels

    @model_validator(mode="after")
    def _columns_fit_the_type(self) -> Self:
        for column in _FOREIGN_COLUMNS.get(self.type, ()):
            if getattr(self, column) is not None:
                reads = ", ".join(name for name in _COLUMNS if name not in _FOREIGN_COLUMNS[self.type])
                raise ValueError(f"a {self.type} task does not read {column!r}; it reads {reads}")
        if self.type == "regression" and self.text is not None and self.image is not None:
            raise ValueError("a regression task reads 'text' or 'image', not both")
        if self.labels is not None and not self.is_classification and self.type != "custom":
            raise ValueError(f"'labels' names the classes of a classification task; this one is {self.type}")
        return self

    @model_validator(mode="after")
    def _metric_fits_the_type(self) -> Self:
        if not self.metric:
            raise ValueError(f"a {self.type} task needs a 'metric', one of {', '.join(METRIC_NAMES)}")
        if self.metric not in METRIC_NAMES:
            raise ValueError(f"unknown metric {self.metric!r}{closest(self.metric, METRIC_NAMES)}")
        fitting = METRICS.get(self.type, METRIC_NAMES)
        if self.metric not in fitting:
            raise ValueError(f"metric {self.metric!r} does not fit a {self.type} task; use {' or '.join(fitting)}")
        return self

    @model_validator(mode="after")
    def _head_is_complete(self) -> Self:
        if self.head == "zero-shot" and self.type != "image-classification":
            raise ValueError(f"head 'zero-shot' is for image-classification tasks; this one is {self.type}")
        if (self.head == "zero-shot") != (self.embeddings is not None):
            raise ValueError("head 'zero-shot' and 'embeddings' (a file with one text embedding per class) go together")
        return self

    @model_validator(mode="after")
    def _custom_has_an_entry_point(self) -> Self:
        if (self.type == "custom") != (self.entry_point is not None):
            raise ValueError("type 'custom' and 'entry_point' (package.module:name) go together")
        module, separator, name = (self.entry_point or "m:n").partition(":")
        if not (separator and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(f"'entry_point' is written package.module:name; found {self.entry_point!r}")
        return self

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if self.validation is None and self.unlabelled is None and self.test is None:
            raise ValueError("a task needs data: 'validation', 'unlabelled' or 'test'")
        return self
