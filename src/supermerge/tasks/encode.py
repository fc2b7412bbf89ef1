"""Rows into examples, and examples into batches: what every kind of task has in common, and texts with one label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supermerge.errors import DataError
from supermerge.tasks.labels import class_indices
from supermerge.tasks.metrics import IGNORED
from supermerge.tasks.rows import Row

LABELS = "labels"
Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Example:
    """One row, encoded: token ids and the like by input name, and its label (token ids where the task generates)."""

    row: Row
    inputs: Mapping[str, list[int]]
    label: int | float | list[int] | None

    @property
    def length(self) -> int:
        """Number of input tokens; 0 for an image."""
        return max((len(ids) for ids in self.inputs.values()), default=0)


class Encoder(ABC):
    """Encodes the rows of one task. `encode` checks and tokenises; `collate` makes a batch of some of the examples."""

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """One example per row, in order."""

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Tensors by input name, padded to the longest example, with `labels` where the examples have them."""


class Labels:
    """Turns the labels of rows into numbers: class indices where the head has class names, else numbers as they are."""

    def __init__(self, names: tuple[str, ...] | None, where: str) -> None:
        self._names = names
        self._where = where

    def of(self, rows: Sequence[Row]) -> list[int | float | None]:
        """One per row; all None where no row has a label. Raises DataError for one that the head does not know."""
        missing = [row for row in rows if row.label is None]
        if len(missing) == len(rows):
            return [None] * len(rows)
        if missing:
            raise DataError(f"{missing[0].place}: no label, while other examples of the same data have one.")
        if self._names is not None:
            return list(class_indices(rows, self._names, where=self._where))
        return [_number(row) for row in rows]


class TextEncoder(Encoder):
    """Texts, or pairs of texts, with one label each."""

    def __init__(
        self, tokenizer: Any, labels: Labels, *, accepted: frozenset[str], max_length: int, pad_id: int
    ) -> None:
        self._tokenizer = tokenizer
        self._labels = labels
        self._accepted = accepted
        self._max_length = max_length
        self._pad_id = pad_id

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Tokenise, cut to `max_length`: the longer text of a pair first."""
        labels = self._labels.of(rows)
        examples: list[Example] = []
        for row, label in zip(rows, labels, strict=True):
            encoded = self._tokenizer(*row.texts, truncation=True, max_length=self._max_length)
            inputs = {name: list(ids) for name, ids in encoded.items() if name in self._accepted}
            if not inputs["input_ids"]:
                raise DataError(f"{row.place}: the text is empty, and the tokenizer adds no token of its own to it.")
            examples.append(Example(row, inputs, label))
        return examples

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Padded on the right."""
        return pad_inputs(examples, self._pad_id) | stacked_labels(examples)


def pad_inputs(examples: Sequence[Example], pad_id: int, *, left: bool = False) -> Batch:
    """`input_ids` padded with `pad_id`, every other input with 0: [n, longest]."""
    return {
        name: pad([example.inputs[name] for example in examples], pad_id if name == "input_ids" else 0, left=left)
        for name in examples[0].inputs
    }


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of different lengths as one tensor [n, longest]."""
    longest = max(len(row) for row in rows)
    padded = torch.full((len(rows), longest), value)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        padded[i, place] = torch.tensor(row, dtype=torch.long)
    return padded


def stacked_labels(examples: Sequence[Example]) -> Batch:
    """`labels` [n], or [n, longest] padded with −100; nothing where the examples have none."""
    labels = [example.label for example in examples if example.label is not None]
    if len(labels) < len(examples):
        return {}
    tokens = [label for label in labels if isinstance(label, list)]
    if tokens:
        return {LABELS: pad(tokens, IGNORED)}
    return {LABELS: torch.tensor(labels)}


def _number(row: Row) -> float:
    if isinstance(row.label, (int, float)):
        return float(row.label)
    raise DataError(f"{row.place}: expected a number as label, found {row.label!r}.")
