"""Which of a model's tensors are merged: parameters that learn, tensors that only start, and their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supermerge.checkpoint import TensorSource
from supermerge.errors import CheckpointError, UsageError


@dataclass(frozen=True, slots=True)
class Mergeable:
    """A model's tensors by the names the base knows them by.

    `learned` are parameters that receive a gradient; `started` are floating buffers, which keep the initial
    coefficient; `copied` are integer and boolean tensors, which come from the base. A tied tensor appears once.
    """

    learned: dict[str, Tensor]
    started: dict[str, Tensor]
    copied: dict[str, Tensor]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the arithmetic: fp64 where the model is fp64, else fp32."""
        return torch.float64 if any(t.dtype == torch.float64 for t in self.learned.values()) else torch.float32


def find_mergeable(model: nn.Module, base: TensorSource, experts: Mapping[str, TensorSource]) -> Mergeable:
    """Pair the model's tensors with the base's; every difference in names and shapes is one CheckpointError.

    Names are those of `model.state_dict()`; of the names of a tied tensor, one is enough.
    """
    parameters = {id(parameter): parameter for parameter in model.parameters()}
    state = model.state_dict(keep_vars=True)
    aliases: dict[int, list[str]] = {}
    for name, tensor in state.items():
        aliases.setdefault(id(tensor), []).append(name)
    learned, started, copied = {}, {}, {}
    problems: list[str] = []
    for key, names in aliases.items():
        tensor = state[names[0]]
        known = [name for name in names if name in base.tensors]
        if not known:
            problems.append(f"{names[0]}: in the model, missing from the base ({base.label})")
            continue
        name = known[0]
        problems += _differences(name, tensor, base, experts)
        if not tensor.is_floating_point():
            copied[name] = tensor
        elif key in parameters:
            learned[name] = tensor
        else:
            started[name] = tensor
    problems += [f"{name}: in the base ({base.label}), missing from the model" for name in base.tensors.keys() - state]
    if problems:
        raise CheckpointError(
            "The model, the base and the experts do not have the same tensors:\n  " + "\n  ".join(sorted(problems)),
            hint="Names must be those of model.state_dict(), shapes those of its tensors.",
        )
    if not experts:
        raise UsageError("There is no expert to merge.", hint="Pass at least one.")
    half = [name for name, tensor in learned.items() if tensor.dtype == torch.float16]
    if half:
        raise UsageError(
            f"{half[0]} is float16, whose small gradients vanish without loss scaling, and a scaled step cannot be "
            "taken back once half of it is applied.",
            hint="Load the model in float32 or bfloat16.",
        )
    return Mergeable(learned, started, copied)


def _differences(name: str, tensor: Tensor, base: TensorSource, experts: Mapping[str, TensorSource]) -> Iterator[str]:
    sources = {f"the base ({base.label})": base} | {f"expert {key}": source for key, source in experts.items()}
    for label, source in sources.items():
        info = source.tensors.get(name)
        if info is None:
            # An integer tensor comes from the base, whatever the experts hold.
            if tensor.is_floating_point() or source is base:
                yield f"{name}: missing from {label}"
        elif tuple(info.shape) != tuple(tensor.shape):
            yield f"{name}: {list(info.shape)} in {label}, {list(tensor.shape)} in the model"


@contextmanager
def learning_mode(model: nn.Module, learned: Mapping[str, Tensor]) -> Iterator[None]:
    """Eval mode (no dropout), gradients for the merged parameters only; modes and flags are given back at the end."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    learned_ids = {id(parameter) for parameter in learned.values()}
    model.eval()
    for parameter in flags:
        parameter.requires_grad_(id(parameter) in learned_ids)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
