"""A tokenizer's files with further tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from supermerge.checkpoint.vocabulary import Files, read_object
from supermerge.errors import CheckpointError

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
_OTHER_FILES = ("config.json", "generation_config.json")
# What tokenizers without tokenizer.json read; they would not know of the new tokens.
_OLD_FILES = ("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model")


def is_tokenizer_file(name: str) -> bool:
    """Whether a file beside weights belongs to the tokenizer."""
    return name not in _OTHER_FILES and "processor" not in name and "feature_extractor" not in name


def with_tokens(files: Files, added: Mapping[str, int], others: Sequence[Files]) -> dict[str, Any]:
    """`files` whose tokenizer.json has the tokens `added`, as other models' files describe them.

    Raises CheckpointError where there is no tokenizer.json.
    """
    tokenizer = read_object(files, "tokenizer.json")
    if tokenizer is None:
        raise CheckpointError(
            "a tokenizer without tokenizer.json cannot take further tokens",
            hint="Load it with transformers and save it beside the model, which writes tokenizer.json.",
        )
    known = {
        token["content"]: token
        for found in reversed([read_object(other, "tokenizer.json") or {} for other in others])
        for token in found.get("added_tokens", [])
    }
    new = [{**_PLAIN, **known.get(token, {}), "id": index, "content": token} for token, index in added.items()]
    tokenizer["added_tokens"] = [*tokenizer.get("added_tokens", []), *new]
    kept = {name: file for name, file in files.items() if name not in _OLD_FILES}
    return {**kept, "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, indent=2).encode()}
