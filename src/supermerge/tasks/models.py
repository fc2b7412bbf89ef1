"""A transformers model built without weights, into which tensors are then placed one by one, never initialised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from supermerge.errors import CheckpointError
from supermerge.resources import wants_memory

_POOLER = "pooler"
# Building a model takes time for every layer, before a tensor is compared with it.
_MOST_LAYERS = 10_000
# What transformers and PyTorch raise for a config whose values make no sense.
MISTAKEN = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
)
# transformers draws random numbers for every tensor without this mark.
_HAS_VALUE = "_is_hf_initialized"
# And keeps the names of parameters that `save_pretrained` leaves out in this.
_NOT_SAVED = "_keys_to_ignore_on_save"


class NoPooler(nn.Module):
    """Stands where a backbone's pooler was: the backbone then gives no pooled output."""

    def forward(self, *_: Any, **__: Any) -> None:
        """None, whatever comes in."""
        return None


def read_config(fields: Mapping[str, Any], label: str) -> PreTrainedConfig:
    """The transformers config in a config.json; CheckpointError where transformers does not know its type."""
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{label}: config.json gives model_type {kind!r}, which the installed transformers does not know.",
            hint="It needs the config.json that transformers wrote; models that bring their own code cannot be used.",
        )
    for key, value in fields.items():
        if "layers" in key and isinstance(value, int) and value > _MOST_LAYERS:
            raise CheckpointError(
                f"{label}: config.json gives {key} = {value}, more than {_MOST_LAYERS:,}.",
                hint="It is damaged, or not to be trusted: copy or download it again.",
            )
    try:
        return CONFIG_MAPPING[kind].from_dict(deepcopy(dict(fields)))
    except (*MISTAKEN, StrictDataclassError) as error:
        raise CheckpointError(
            f"{label}: transformers cannot read config.json ({kind}): {error}",
            hint="Copy or download the file again.",
        ) from error


def build(kind: Any, config: PreTrainedConfig, label: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model on the meta device, in eval mode: of the class `kind`, or the one the Auto class `kind` picks."""
    config = deepcopy(config)
    try:
        with torch.device("meta"):
            if hasattr(kind, "from_config"):
                model = kind.from_config(config, dtype=dtype, trust_remote_code=False)
            else:
                model = kind(config).to(dtype)
    except MISTAKEN as error:
        raise CheckpointError(
            f"{label}: transformers cannot build {kind.__name__} for model_type {config.model_type!r}: {error}",
            hint="Is the task's type the one that this checkpoint was trained for?",
        ) from error
    _without_computed(model)
    return model.eval()


def _without_computed(model: PreTrainedModel) -> None:
    """Make buffers of the parameters that no file holds, because the class computes them: Marian's table of sines."""
    parameters = dict(model.named_parameters())
    for name in getattr(model, _NOT_SAVED, None) or ():
        if name in parameters:
            path, _, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            delattr(module, leaf)
            module.register_buffer(leaf, parameters[name].detach(), persistent=False)


@contextmanager
def running(task: str, model: nn.Module) -> Iterator[None]:
    """A model at work on a task's examples: CheckpointError for what it then says of its config or its inputs."""
    try:
        yield
    except MISTAKEN as error:
        if wants_memory(error):
            raise
        raise CheckpointError(
            f"task {task!r}: {type(model).__name__} cannot run on its examples: {error}",
            hint="Are config.json, the weights, and the tokenizer or image processor those of one model?",
        ) from error


def is_pooler(name: str) -> bool:
    """Whether a tensor belongs to a pooler, by its name."""
    return _POOLER in name.split(".")


def remove_pooler(model: nn.Module) -> None:
    """Take the pooler out of a backbone."""
    for parent in list(model.modules()):
        if isinstance(getattr(parent, _POOLER, None), nn.Module):
            setattr(parent, _POOLER, NoPooler().train(parent.training))


def place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` itself the parameter or buffer `name` of the model; nothing is copied."""
    path, _, leaf = name.rpartition(".")
    setattr(tensor, _HAS_VALUE, True)
    setattr(model.get_submodule(path), leaf, tensor)


def fill_buffers(model: PreTrainedModel, device: torch.device, shared: Mapping[str, Tensor]) -> None:
    """Compute the buffers that no file holds (position ids, rotary frequencies, masks), or take those in `shared`.

    Everything else must be in place: CheckpointError for what still has no value.
    """
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta and name in shared:
            place(model, name, shared[name])
        elif buffer.is_meta:
            path, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(path), leaf, torch.empty_like(buffer, device=device))
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise CheckpointError(f"{type(model).__name__}: no values for {', '.join(empty)}.")
    model.initialize_weights()
