"""The output's config.json: the base's, with the number of layers, the vocabulary and the dtype that it now has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from supermerge.errors import CheckpointError

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def config_for(
    written: Path | bytes | None,
    *,
    layers: Sequence[int] | None = None,
    vocabulary: int | None = None,
    dtype: str | None = None,
) -> bytes | None:
    """`written` with those changes that apply; None where there is no config, or nothing to change.

    `layers` are the base's layers that the output's stand in place of: lists with one entry per layer follow them.
    Raises CheckpointError where the config does not say how many layers or tokens there are.
    """
    if written is None or (layers is None and vocabulary is None and dtype is None):
        return None
    config: dict[str, Any] = json.loads(written if isinstance(written, bytes) else written.read_bytes())
    if layers is not None:
        _set_layers(config, layers)
    if vocabulary is not None and not _set(config, ("vocab_size",), vocabulary):
        raise CheckpointError("config.json: has no vocab_size to change", hint="Add it to the config of the base.")
    if dtype is not None and not _set(config, ("dtype", "torch_dtype"), dtype):
        config["torch_dtype"] = dtype
    return (json.dumps(config, indent=2) + "\n").encode()


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config, and the text model's own inside it."""
    yield config
    if isinstance(config.get("text_config"), dict):
        yield config["text_config"]


def _set(config: dict[str, Any], keys: Sequence[str], value: object) -> bool:
    found = [(part, key) for part in _parts(config) for key in keys if key in part]
    for part, key in found:
        part[key] = value
    return bool(found)


def _set_layers(config: dict[str, Any], layers: Sequence[int]) -> None:
    for part in _parts(config):
        key = next((key for key in _LAYER_KEYS if isinstance(part.get(key), int)), None)
        if key is None:
            continue
        before = part[key]
        for name, value in part.items():
            if "layer" in name and isinstance(value, list) and len(value) == before and max(layers) < before:
                part[name] = [value[layer] for layer in layers]
        part[key] = len(layers)
        return
    raise CheckpointError(
        f"config.json: does not say how many layers there are, under any of {', '.join(_LAYER_KEYS)}",
        hint="Slices need the config of a model with one stack of layers.",
    )
