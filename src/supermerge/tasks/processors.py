"""Tokenizer, image processor and generation config of a model: the base's, or else the expert's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from supermerge.checkpoint.locate import read_json
from supermerge.errors import CheckpointError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
)
_GENERATION_TOKENS = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")


def tokenizer_of(directories: Iterable[Path | None], label: str) -> Any:
    """The tokenizer of the first directory that has one. CheckpointError where none has, or it cannot be read."""
    from transformers import AutoTokenizer

    return _first(AutoTokenizer, directories, _TOKENIZER_FILES, "tokenizer", label)


def image_processor_of(directories: Iterable[Path | None], label: str) -> Any:
    """The image processor of the first directory that has one. Raises CheckpointError as `tokenizer_of` does."""
    from transformers import AutoImageProcessor

    return _first(AutoImageProcessor, directories, _IMAGE_FILES, "image processor", label)


def generation_config_of(directories: Iterable[Path | None]) -> Any:
    """The tokens that begin and end a text, of the first directory that says; None where none does.

    A generation_config.json also says how to sample, which greedy generation has no use for.
    """
    from transformers import GenerationConfig

    for directory in directories:
        if directory is not None and (directory / "generation_config.json").is_file():
            known = read_json(directory / "generation_config.json")
            return GenerationConfig(**{name: known[name] for name in _GENERATION_TOKENS if name in known})
    return None


def _first(auto: Any, directories: Iterable[Path | None], files: tuple[str, ...], what: str, label: str) -> Any:
    searched = [directory for directory in directories if directory is not None]
    for directory in searched:
        if any((directory / name).is_file() for name in files):
            try:
                return auto.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
                raise CheckpointError(f"{directory}: transformers cannot read its {what}: {error}") from error
    where = " or ".join(map(str, searched)) or "a checkpoint that is not a directory"
    raise CheckpointError(
        f"{label}: no {what} in {where} (looked for {', '.join(files)}).",
        hint=f"Copy the {what}'s files into the base's directory.",
    )
