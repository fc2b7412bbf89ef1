"""Tokenizer, image processor and generation tokens of a model: the base's, or else the expert's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supermerge.checkpoint.locate import read_json
from supermerge.errors import CheckpointError
from supermerge.resources import wants_memory
from supermerge.tasks.models import MISTAKEN

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
)
_GENERATION_TOKENS = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")
_MAY_BE_UNKNOWN = ("bos_token_id", "eos_token_id")
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")


def tokenizer_of(directories: Iterable[Path | None], label: str) -> Any:
    """The tokenizer of the first directory that has one. CheckpointError where none has, or it cannot be read."""
    from transformers import AutoTokenizer

    return _first(AutoTokenizer, directories, _TOKENIZER_FILES, "tokenizer", label)


def image_processor_of(directories: Iterable[Path | None], label: str) -> Any:
    """The image processor of the first directory that has one. Raises CheckpointError as `tokenizer_of` does."""
    from transformers import AutoImageProcessor

    return _first(AutoImageProcessor, directories, _IMAGE_FILES, "image processor", label)


@contextmanager
def tokenising(task: str) -> Iterator[None]:
    """A tokenizer at work on a task's examples: CheckpointError for what it then says of its own files."""
    try:
        yield
    except Exception as error:
        if wants_memory(error) or not _is_mistaken(error):
            raise
        raise CheckpointError(
            f"task {task!r}: its tokenizer cannot read the examples: {error}",
            hint="tokenizer.json or tokenizer_config.json is damaged, or they are of two models: copy both again.",
        ) from error


def _is_mistaken(error: Exception) -> bool:
    """Whether an error is of files that make no sense; the tokenizers library raises plain Exceptions."""
    return type(error) is Exception or isinstance(error, MISTAKEN)


def generation_tokens_of(directories: Iterable[Path | None], vocabulary: int) -> dict[str, Any]:
    """The tokens that begin and end a text, as the first directory that has a generation_config.json gives them.

    That file also says how to sample, which greedy generation has no use for. `eos_token_id` may be a list. Raises
    CheckpointError where a token is no number, or one that a text must begin with is not among the `vocabulary`: as
    the end of a text such a token is what transformers writes for a model whose config does not name one.
    """
    for directory in directories:
        if directory is not None and (directory / "generation_config.json").is_file():
            path = directory / "generation_config.json"
            known = read_json(path)
            tokens = {name: known[name] for name in _GENERATION_TOKENS if known.get(name) is not None}
            for name, found in tokens.items():
                require_token(found, f"{path}: {name}", None if name in _MAY_BE_UNKNOWN else vocabulary)
            return tokens
    return {}


def require_token(found: Any, what: str, vocabulary: int | None) -> None:
    """Raise CheckpointError where `found` is no token's number (or, without a `vocabulary`, a list of them)."""
    listed = found if vocabulary is None and isinstance(found, list) else [found]
    for token in listed:
        whole = isinstance(token, int) and not isinstance(token, bool)
        if not whole or (vocabulary is not None and not 0 <= token < vocabulary):
            below = "" if vocabulary is None else f" from 0 to {vocabulary - 1}"
            raise CheckpointError(
                f"{what} is {token!r}, expected the number of a token{below}.",
                hint="Copy the file from the model that the experts were trained from, or correct the number there.",
            )


def _first(auto: Any, directories: Iterable[Path | None], files: tuple[str, ...], what: str, label: str) -> Any:
    searched = [directory for directory in directories if directory is not None]
    for directory in searched:
        if any((directory / name).is_file() for name in files):
            try:
                return auto.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            except Exception as error:
                if not (isinstance(error, OSError) or _is_mistaken(error)):
                    raise
                raise CheckpointError(f"{directory}: transformers cannot read its {what}: {error}") from error
    where = " or ".join(map(str, searched)) or "a checkpoint that is not a directory"
    raise CheckpointError(
        f"{label}: no {what} in {where} (looked for {', '.join(files)}).",
        hint=f"Copy the {what}'s files into the base's directory.",
    )
