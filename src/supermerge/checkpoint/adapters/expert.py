"""Opening an expert: a checkpoint of its own, or an adapter on a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from supermerge.checkpoint.adapters.adapted import Adapted
from supermerge.checkpoint.adapters.changes import Changed
from supermerge.checkpoint.adapters.fitting import Fitting
from supermerge.checkpoint.adapters.parts import read_parts
from supermerge.checkpoint.adapters.settings import CONFIG_NAME, AdapterSettings, is_adapter, read_settings
from supermerge.checkpoint.checkpoint import Checkpoint, Place, place_of
from supermerge.checkpoint.files import identify, open_safetensors
from supermerge.checkpoint.locate import inside
from supermerge.checkpoint.source import TensorSource
from supermerge.errors import CheckpointError

WEIGHTS_NAME = "adapter_model.safetensors"
_EMBEDDINGS = ("embed_tokens.", "wte.", "word_embeddings.", "shared.")


def open_expert(ref: Any, base: Checkpoint, stack: ExitStack, *, adapter: str | None = None) -> Checkpoint:
    """Open an expert of `base`; `stack` closes it.

    `ref` is whatever `Checkpoint.open` takes, or the directory or hub id of an adapter on `base`. With `adapter` it is
    that adapter on `ref`, or on `base` where `ref` is None. An adapter is seen as the model that it makes: the names of
    the model's tensors, dense values. Raises CheckpointError as `Checkpoint.open`, and where an adapter is of a kind
    that is not read, does not fit, or lies on a quantised model.
    """
    if adapter is not None:
        model = base if ref is None else stack.enter_context(Checkpoint.open(ref))
        return _adapted(adapter, place_of(adapter), model, stack)
    if isinstance(ref, str | os.PathLike):
        place = place_of(ref)
        if is_adapter(place.path):
            return _adapted(os.fspath(ref), place, base, stack)
    return stack.enter_context(Checkpoint.open(ref))


def _adapted(label: str, place: Place, model: Checkpoint, stack: ExitStack) -> Checkpoint:
    settings = read_settings(place.path)
    if model.config.get("quantization_config"):
        raise CheckpointError(
            f"{model.label}: is quantised, and the adapter {label} adds to weights that are not",
            hint="Give the model without quantisation as the base (or as the expert's 'model'), or dequantise it: "
            "`dequantize()`, then `save_pretrained()` of transformers.",
        )
    weights = _weights(place.path)
    store = open_safetensors(label, [weights])
    stack.callback(store.close)
    parts = read_parts(label, store.tensors)
    if not store.tensors:
        raise CheckpointError(f"{weights}: holds no tensors", hint="Check that it is the adapter you mean.")
    fitted = Fitting(model, store, settings, parts).work_out()
    status = weights.stat()
    return Checkpoint(
        Adapted(label, model, store, settings, fitted),
        identity=(model.identity, status.st_dev, status.st_ino),
        directory=place.path,
        revision=place.revision,
        fingerprint=(*model.fingerprint(), *store.identities, identify(settings.path)),
        borrowed=True,
        under=model,
        config=_config(model, store, fitted.changed),
        notes=tuple(_notes(label, model, settings, fitted.changed)),
    )


def _weights(directory: Path) -> Path:
    weights = directory / WEIGHTS_NAME
    if weights.is_file():
        return inside(directory, weights)
    raise CheckpointError(
        f"{directory}: has {CONFIG_NAME} and no {WEIGHTS_NAME}",
        hint="Copy or download the adapter again; one in adapter_model.bin, a pickle, must be saved again by PEFT.",
    )


def _config(model: Checkpoint, adapter: TensorSource, changed: Mapping[str, Changed]) -> dict[str, Any]:
    """The model's config, with as many classes as the narrowest matrix of the head that the adapter brings."""
    head = [adapter.tensors[what.stored[1]].shape for name, what in changed.items() if name not in model.tensors]
    counts = [shape[0] for shape in head if len(shape) == 2]
    config = dict(model.config)
    if counts and len(config.get("id2label") or ()) != min(counts):
        config["num_labels"] = min(counts)
        for names in ("id2label", "label2id"):
            config.pop(names, None)
    return config


def _notes(label: str, model: Checkpoint, settings: AdapterSettings, changed: Mapping[str, Changed]) -> list[str]:
    notes: list[str] = []
    trained_on = settings.trained_on
    if trained_on is not None and _last_part(trained_on) != _last_part(model.label):
        notes.append(f"adapter {label}: its config says that it was trained on {trained_on}, not on {model.label}")
    tied = [name for name in changed if any(part in name for part in _EMBEDDINGS)]
    if model.config.get("tie_word_embeddings") and tied and "lm_head.weight" not in model.tensors:
        notes.append(f"adapter {label}: changes {tied[0]}, which the model also uses as its output, so both change")
    return notes


def _last_part(ref: str) -> str:
    return Path(ref.partition("@")[0].rstrip("/")).name.lower()
