"""Whether a checkpoint is exactly what its class of transformers loads: nothing initialised, nothing ignored."""

from __future__ import annotations

import torch

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError


def loading_differences(checkpoint: Checkpoint, *, whole: bool) -> tuple[str | None, list[str]]:
    """(class, differences) between `checkpoint` and the class that its config.json names, built without weights.

    A parameter is missing, or has another shape; with `whole` also a tensor that the class has no place for. A pooler
    may be missing: `supermerge.load` leaves it out. Where the installed transformers does not know the type, or cannot
    build the class, there is nothing to compare: (None, []).
    """
    if not checkpoint.config.get("model_type"):
        return None, []
    import transformers

    from supermerge.tasks.binding import Binding
    from supermerge.tasks.models import build, is_pooler, read_config

    name = next(iter(checkpoint.architectures), "AutoModel")
    kind = getattr(transformers, name, None)
    # Nothing else that a config may name is called.
    if not isinstance(kind, type) or not (issubclass(kind, transformers.PreTrainedModel) or name.startswith("Auto")):
        return None, []
    try:
        model = build(kind, read_config(checkpoint.config, checkpoint.label), checkpoint.label, torch.float32)
    except CheckpointError:
        return None, []
    binding = Binding.of(model, checkpoint)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    lost = [each for each in binding.missing if each in parameters and not is_pooler(each)]
    differences = [f"{each} is missing" for each in lost]
    for each, parameter in parameters.items():
        if each in binding.made and binding.made[each].route.converter is None:
            (stored,) = binding.files(each)
            found, expected = checkpoint.tensors[stored].shape, tuple(parameter.shape)
            if found != expected:
                differences.append(f"{stored} has shape {list(found)}, expected is {list(expected)}")
    if whole:
        doubles = {double for double, _ in binding.doubles}
        differences += [f"{each} has no place in it" for each in binding.unexpected if each not in doubles]
    return name, differences
