"""What a model can be given to read: which tokens, and how many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from supermerge.errors import CheckpointError
from supermerge.tasks.encode import Example


def most_tokens(model: PreTrainedModel) -> int | None:
    """How many tokens the model's table of learned positions has rows for; None where positions are computed.

    A longer text ends inside the model, with whatever its table happens to say.
    """
    config: Any = model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int):
        return None
    words = model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module is not words]
    # Some have two rows more than they say, which no token gets.
    sized = [table for table in tables if most <= table.num_embeddings <= most + 2]
    return min((min(most, table.num_embeddings - _unused(table)) for table in sized), default=None)


def within(model: PreTrainedModel, wanted: int) -> int:
    """`wanted` tokens, or as many as the model has positions for."""
    most = most_tokens(model)
    return wanted if most is None else min(wanted, most)


def vocabulary(model: PreTrainedModel) -> int:
    """How many tokens the model has embeddings for."""
    table: Any = model.get_input_embeddings()
    return int(table.num_embeddings)


def require_known(model: PreTrainedModel, examples: Sequence[Example]) -> None:
    """Raise CheckpointError where an example has a token, or a segment, that the model has no embedding for."""
    tokens, segments = vocabulary(model), getattr(model.config, "type_vocab_size", None)
    for example in examples:
        _require(example, "token", example.inputs["input_ids"], tokens)
        if isinstance(example.label, list):
            _require(example, "token", example.label, tokens)
        if segments:
            _require(example, "segment", example.inputs.get("token_type_ids", ()), segments)


def _require(example: Example, what: str, found: Sequence[int], most: int) -> None:
    highest = max(found, default=0)
    if highest >= most:
        raise CheckpointError(
            f"{example.row.place}: its {what} {highest} is not one of the {most} that the model has embeddings for.",
            hint="The tokenizer is another model's, or has tokens that the model was not resized for.",
        )


def _unused(table: nn.Embedding) -> int:
    """The first rows that no token gets: BART and OPT skip `offset`, RoBERTa those up to the padding's."""
    skipped = getattr(table, "offset", None)
    if skipped is not None:
        return skipped
    return 0 if table.padding_idx is None else table.padding_idx + 1
