"""Heads: a task's model is the host's parameters plus tensors of its own, read from files and never merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from supermerge.checkpoint import TensorSource, require_finite
from supermerge.errors import CheckpointError
from supermerge.tasks.binding import Binding, Origin
from supermerge.tasks.bound import Bound
from supermerge.tasks.host import Host
from supermerge.tasks.models import fill_buffers, place
from supermerge.tasks.sharing import shared_buffers, shared_tensors


@dataclass(frozen=True, slots=True)
class Head:
    """A task's model, ready to run, and what of it belongs to the task alone.

    `module(**inputs).logits` are the logits. `own` are the tensors that are not the host's, by the names they are
    saved under; `config` is the config.json that goes with them; `labels` are the class names in the order of the
    outputs, None where there are no classes.
    """

    module: nn.Module
    own: dict[str, Tensor]
    config: dict[str, Any]
    labels: tuple[str, ...] | None


def complete(model: PreTrainedModel, host: Host, sources: Sequence[TensorSource], label: str) -> dict[str, Tensor]:
    """Fill the empty `model` with the host's tensors, and with its own from the first source that has them.

    Returns its own tensors by name. Raises CheckpointError naming every tensor that no source has, or one that is not
    finite.
    """
    pairs = shared_tensors(model, host, label)
    theirs = host.model.state_dict(keep_vars=True)
    own_names = [name for name in model.state_dict() if name not in pairs]
    buffers = shared_buffers(model, host.model, pairs)
    own = _own_tensors(model, own_names, sources, host, label)
    for name, host_name in pairs.items():
        place(model, name, theirs[host_name])
    for name, tensor in own.items():
        place(model, name, tensor)
    fill_buffers(model, host.device, buffers)
    return own


def _own_tensors(
    model: PreTrainedModel, names: Iterable[str], sources: Sequence[TensorSource], host: Host, label: str
) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    lacking = list(names)
    for source in sources:
        bound = Bound(Binding.of(model, source).only(lacking), source)
        by_origin: dict[Origin, Tensor] = {}
        for name in lacking:
            if name in bound.tensors:
                origin = bound.origin(name)
                if origin not in by_origin:
                    found = bound.read(name)
                    require_finite(found, name=name, label=source.label)
                    by_origin[origin] = _owned(found, state[name], host)
                own[name] = by_origin[origin]
        lacking = [name for name in lacking if name not in own]
    if lacking:
        raise CheckpointError(
            f"{label} has no {', '.join(lacking)}: {type(model).__name__} needs them beside the base's tensors.",
            hint="Give the task a head: a checkpoint that has these tensors.",
        )
    return own


def _owned(tensor: Tensor, like: Tensor, host: Host) -> Tensor:
    """A copy that nothing else holds; a head is never trained, so it takes no gradient."""
    copy = torch.empty_like(like, device=host.device, requires_grad=False).copy_(tensor)
    return nn.Parameter(copy, requires_grad=False) if isinstance(like, nn.Parameter) else copy


def own_tensor(source: TensorSource, names: Sequence[str], shape: Sequence[int | None], host: Host) -> Tensor | None:
    """The first of `names` that `source` has, in the host's dtype and on its device; None where it has none of them.

    `shape` is what it must be, with None for any size; CheckpointError otherwise, and where a value is not finite.
    """
    name = next((name for name in names if name in source.tensors), None)
    if name is None:
        return None
    found = source.tensors[name].shape
    if len(found) != len(shape) or any(want not in (None, size) for want, size in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise CheckpointError(f"{source.label}: {name} has shape {list(found)}, expected [{wanted}].")
    tensor = source.read(name)
    require_finite(tensor, name=name, label=source.label)
    return tensor.to(device=host.device, dtype=host.dtype, copy=True)


def head_config(config: Mapping[str, Any], labels: Sequence[str] | None) -> dict[str, Any]:
    """A config.json whose class names are `labels`."""
    named = dict(config)
    if labels is not None:
        named["id2label"] = dict(enumerate(labels))
        named["label2id"] = {name: index for index, name in enumerate(labels)}
    return named
