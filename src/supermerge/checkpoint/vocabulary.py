"""The tokens of a checkpoint, read from its tokenizer's files without any tokenizer library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supermerge.checkpoint.names import pattern
from supermerge.checkpoint.source import TensorSource
from supermerge.errors import CheckpointError

Files = Mapping[str, Path | bytes]
"""Files beside weights: name → where it is, or its content."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token → index; `added` are those put in after training, which tokenizers may rename at will."""

    tokens: Mapping[str, int]
    added: frozenset[str] = field(default=frozenset())

    @property
    def size(self) -> int:
        """Indices that tokens take: the highest, plus one."""
        return max(self.tokens.values(), default=-1) + 1


def content(files: Files, name: str) -> bytes | None:
    """The content of a file; None where there is none."""
    found = files.get(name)
    return found.read_bytes() if isinstance(found, Path) else found


def read_object(files: Files, name: str) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is none, CheckpointError where it is something else."""
    raw = content(files, name)
    if raw is None:
        return None
    try:
        found = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{files[name]!s:.200}: is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{files[name]!s:.200}: is not a JSON object")
    return found


def read_vocabulary(files: Files) -> Vocabulary | None:
    """From tokenizer.json, else vocab.json or vocab.txt; None where none of them is there."""
    tokenizer = read_object(files, "tokenizer.json")
    if tokenizer is not None:
        return _of_tokenizer(tokenizer)
    listed = read_object(files, "vocab.json")
    if listed is not None:
        added = read_object(files, "added_tokens.json") or {}
        return Vocabulary({**listed, **added}, frozenset(added))
    lines = content(files, "vocab.txt")
    if lines is not None:
        return Vocabulary({line: index for index, line in enumerate(lines.decode("utf-8").splitlines())})
    return None


def _of_tokenizer(tokenizer: Mapping[str, Any]) -> Vocabulary:
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: [token, score] in order
        vocabulary = {token: index for index, (token, _) in enumerate(vocabulary)}
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    return Vocabulary({**vocabulary, **added}, frozenset(added))


def vocabulary_tensors(source: TensorSource, rows: int) -> list[str]:
    """Tensors with one row per token: outside the layers, a matrix or a bias whose first dimension is `rows`."""
    return [
        info.name
        for info in source.tensors.values()
        if info.shape[:1] == (rows,)
        and info.is_floating
        and pattern(info.name) == info.name
        and (len(info.shape) == 2 or info.name.endswith(".bias"))
    ]
