"""Whether the config of an expert reads its weights as the base's config does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.errors import CheckpointError

# One of two models with the same tensors would leave some out, or cut them up otherwise.
_COUNTS = frozenset(
    (
        "num_hidden_layers",
        "num_layers",
        "num_decoder_layers",
        "n_layer",
        "n_layers",
        "encoder_layers",
        "decoder_layers",
        "depth",
        "num_attention_heads",
        "num_heads",
        "n_head",
        "n_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "patch_size",
    )
)
# The same tensors, computed with in another way: some fine-tuning changes these on purpose.
_WAYS = frozenset(
    (
        "hidden_act",
        "hidden_activation",
        "activation_function",
        "feed_forward_proj",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "sliding_window",
        "num_experts_per_tok",
        "position_embedding_type",
    )
)


def compared_configs(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> list[str]:
    """Notes for the user where an expert computes otherwise than the base, whose config the merge gets.

    Raises CheckpointError where layers, heads or patches are counted otherwise: one of the two configs is not that of
    its weights.
    """
    notes: list[str] = []
    for name, expert in experts.items():
        for key, here, there in _differences(base.config, expert.config, ""):
            said = f"expert {name!r} ({expert.label}): {key} is {there!r} in its config, and {here!r} in the base's"
            last = key.rpartition(".")[2]
            if last in _COUNTS:
                raise CheckpointError(
                    f"{said} ({base.label}).",
                    hint="Experts are fine-tuned from the base: give each the config that belongs to its weights.",
                )
            if last in _WAYS:
                notes.append(f"{said}; the merge has the base's")
    return notes


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
    """Keys that both have, with dots, and what they say; into the configs of parts (text_config, vision_config)."""
    for key, mine in here.items():
        theirs = there.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping) and key.endswith("_config"):
            yield from _differences(mine, theirs, f"{place}{key}.")
        elif key in there and mine != theirs and None not in (mine, theirs):
            yield f"{place}{key}", mine, theirs
