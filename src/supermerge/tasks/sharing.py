"""Which tensors of a task's model are the host's: the same file tensors, or the same place in the same backbone."""

from __future__ import annotations

from collections import Counter

from torch import Tensor, nn
from transformers import PreTrainedModel

from supermerge.errors import CheckpointError
from supermerge.tasks.binding import Binding
from supermerge.tasks.host import Host
from supermerge.tasks.models import is_pooler


def shared_tensors(model: PreTrainedModel, host: Host, label: str) -> dict[str, str]:
    """Names in `model.state_dict()` → the host's name of the same tensor. A pooler is never shared.

    Raises CheckpointError where a tensor of the backbone is not in the host, or has another shape there: `model` is
    built from the config of the expert `label`, the host from the base's.
    """
    of_host = {made.origin: name for name, made in reversed(host.binding.made.items())}
    in_base = Binding.of(model, host.base)
    pairs = {name: of_host[made.origin] for name, made in in_base.made.items() if made.origin in of_host}
    # A base saved without the prefix that the task's class asks for still has the same backbone.
    pairs = {**_same_backbone(model, host.model), **pairs}
    pairs = {name: theirs for name, theirs in pairs.items() if not is_pooler(name)}
    alien = [name for name in _backbone_names(model) if name not in pairs and not is_pooler(name)]
    if alien or not pairs:
        raise CheckpointError(
            f"{label}: the base's {type(host.model).__name__} lacks {len(alien) or 'all'} tensors of the backbone of "
            f"{type(model).__name__}{f', such as {alien[0]}' if alien else ''}.",
            hint="Base and expert must be of the same architecture.",
        )
    ours, state = model.state_dict(keep_vars=True), host.model.state_dict(keep_vars=True)
    for name, theirs in pairs.items():
        if ours[name].shape != state[theirs].shape:
            raise CheckpointError(
                f"{label}: its config asks for shape {list(ours[name].shape)} at {name}; the base has "
                f"{list(state[theirs].shape)} ({theirs}).",
                hint="Base and expert must be of the same architecture.",
            )
    return pairs


def shared_buffers(model: nn.Module, host: nn.Module, pairs: dict[str, str]) -> dict[str, Tensor]:
    """The host's buffers that no file holds, by the name of their counterpart in `model`."""
    prefixes = Counter(_different_fronts(ours, theirs) for ours, theirs in pairs.items())
    theirs = dict(host.named_buffers())
    found: dict[str, Tensor] = {}
    for name, buffer in model.named_buffers():
        for (front, host_front), _ in prefixes.most_common():
            if name.startswith(front):
                candidate = theirs.get(host_front + name.removeprefix(front))
                if candidate is not None and candidate.shape == buffer.shape and candidate.dtype == buffer.dtype:
                    found.setdefault(name, candidate)
    return found


def _same_backbone(model: nn.Module, host: PreTrainedModel) -> dict[str, str]:
    """Pairs from the sub-module of `model` that has the class of the host's backbone."""
    backbone = host.base_model
    inside = next(name for name, module in host.named_modules() if module is backbone)
    held = host.state_dict(keep_vars=True)
    pairs: dict[str, str] = {}
    for path, module in model.named_modules():
        if type(module) is type(backbone):
            for name in module.state_dict(keep_vars=True):
                theirs = f"{inside}.{name}".lstrip(".")
                if theirs in held:
                    pairs[f"{path}.{name}".lstrip(".")] = theirs
    return pairs


def _backbone_names(model: PreTrainedModel) -> list[str]:
    """The state_dict names below `base_model_prefix`; none where the class keeps its backbone in another place."""
    front = f"{model.base_model_prefix}."
    return [name for name in model.state_dict(keep_vars=True) if name.startswith(front)]


def _different_fronts(ours: str, theirs: str) -> tuple[str, str]:
    """`bert.encoder.x`, `encoder.x` → `bert.`, ``: what is left after the parts that both names end with."""
    a, b = ours.split("."), theirs.split(".")
    while a and b and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return "".join(f"{part}." for part in a), "".join(f"{part}." for part in b)
