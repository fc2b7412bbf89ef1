"""Prompts and targets for models that generate: a decoder that continues the prompt, or an encoder-decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from supermerge.errors import DataError
from supermerge.tasks.encode import Batch, Encoder, Example, pad_inputs, stacked_labels
from supermerge.tasks.metrics import IGNORED
from supermerge.tasks.rows import Row


class CausalEncoder(Encoder):
    """Prompt and target laid end to end; the loss counts the target's tokens and the end-of-text after it.

    Nothing is put between the two: the space, if one is wanted, belongs to the prompt or the target. Without a prompt
    every token counts; without a target (unlabelled data) the prompt's own do. At most `max_length` tokens: the target
    loses its end, then the prompt its beginning. `start_id` is the beginning-of-text token, which an answer without a
    prompt continues.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, pad_id: int, start_id: int | None) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id
        self._start_id = start_id

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Token ids of the whole text; the label is the same with −100 at the prompt."""
        return [self._example(row) for row in rows]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Padded on the right."""
        return pad_inputs(examples, self._pad_id) | stacked_labels(examples)

    def prompts(self, rows: Sequence[Row], most: int) -> Batch:
        """The prompts alone, to be continued: at most so many tokens of each, padded on the left."""
        most = min(most, self._max_length)
        examples = [Example(row, _inputs((self._prompt(row) or self._start(row))[-most:]), None) for row in rows]
        return pad_inputs(examples, self._pad_id, left=True)

    def _start(self, row: Row) -> list[int]:
        if self._start_id is None:
            raise DataError(
                f"{row.place}: no prompt, and the tokenizer has no beginning-of-text token for an answer to follow.",
                hint="Give the row a prompt, or score the task by perplexity.",
            )
        return [self._start_id]

    def _example(self, row: Row) -> Example:
        prompt = self._prompt(row)
        target = self._target(row)
        if not prompt or row.target is None:
            ids = (prompt + target)[: self._max_length]
            labels = ids
        else:
            target = target[: self._max_length - 1]
            prompt = prompt[-(self._max_length - len(target)) :]
            ids = prompt + target
            labels = [IGNORED] * len(prompt) + target
        if len(ids) < 2:
            raise DataError(f"{row.place}: {len(ids)} token(s); a decoder needs at least two to predict one.")
        return Example(row, _inputs(ids), labels)

    def _prompt(self, row: Row) -> list[int]:
        if not row.prompt:
            return []
        ids = list(self._tokenizer(row.prompt)["input_ids"])
        end = self._tokenizer.eos_token_id
        return ids[:-1] if len(ids) > 1 and ids[-1] == end else ids

    def _target(self, row: Row) -> list[int]:
        if row.target is None:
            return []
        # The beginning-of-text token belongs in front of a text that has no prompt.
        ids = list(self._tokenizer(row.target, add_special_tokens=not row.prompt)["input_ids"])
        end = self._tokenizer.eos_token_id
        return ids if end is None or (ids and ids[-1] == end) else [*ids, end]


class Seq2SeqEncoder(Encoder):
    """The prompt is the encoder's input, the target what the decoder should say; each at most `max_length` tokens."""

    def __init__(self, tokenizer: Any, *, max_length: int, pad_id: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Token ids of the prompt; the label is the target's."""
        return [Example(row, self._prompt(row), self._target(row)) for row in rows]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Both padded on the right."""
        return pad_inputs(examples, self._pad_id) | stacked_labels(examples)

    def prompts(self, rows: Sequence[Row]) -> Batch:
        """The prompts alone."""
        return pad_inputs([Example(row, self._prompt(row), None) for row in rows], self._pad_id)

    def _prompt(self, row: Row) -> dict[str, list[int]]:
        return _inputs(self._ids(row, text=row.prompt or ""))

    def _target(self, row: Row) -> list[int]:
        if row.target is None:
            raise DataError(
                f"{row.place}: no target; the decoder of a seq2seq model reads it, also where no label is wanted.",
                hint="Use labelled data for this task.",
            )
        return self._ids(row, text_target=row.target)

    def _ids(self, row: Row, **text: str) -> list[int]:
        ids = list(self._tokenizer(**text, truncation=True, max_length=self._max_length)["input_ids"])
        if not ids:
            raise DataError(f"{row.place}: the text is empty, and the tokenizer adds no token of its own to it.")
        return ids


def _inputs(ids: list[int]) -> dict[str, list[int]]:
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}
