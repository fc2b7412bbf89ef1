"""How many tokens a text may have, where a model has learned a position for each."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel


def most_tokens(model: PreTrainedModel) -> int | None:
    """How many tokens the model's table of learned positions has rows for; None where positions are computed.

    A longer text ends inside the model, with whatever its table happens to say.
    """
    config: Any = model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if most is None:
        return None
    words = model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module is not words]
    usable = [
        table.num_embeddings - _unused(table)
        for table in tables
        if table.num_embeddings in (most, most + getattr(table, "offset", 0))
    ]
    return min(usable, default=None)


def within(model: PreTrainedModel, wanted: int) -> int:
    """`wanted` tokens, or as many as the model has positions for."""
    most = most_tokens(model)
    return wanted if most is None else min(wanted, most)


def _unused(table: nn.Embedding) -> int:
    """The first rows that no token gets: BART and OPT skip `offset`, RoBERTa those up to the padding's."""
    skipped = getattr(table, "offset", None)
    if skipped is not None:
        return skipped
    return 0 if table.padding_idx is None else table.padding_idx + 1
