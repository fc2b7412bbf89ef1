"""`supermerge.merge`: base and experts in memory or on disk, a merged state dict back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from supermerge.assemble.choice import Rules
from supermerge.assemble.stream import merge_into
from supermerge.checkpoint import Checkpoint, TensorInfo, match, open_expert
from supermerge.errors import UsageError


class StateDict:
    """A sink that keeps what it is given, by name."""

    def __init__(self, infos: Sequence[TensorInfo]) -> None:
        self.tensors = {info.name: torch.empty(info.shape, dtype=info.dtype) for info in infos}

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Elements from `start` on of the flattened tensor."""
        self.tensors[name].view(-1)[start : start + tensor.numel()] = tensor


def merge(
    base: Any,
    experts: Mapping[str, Any] | Sequence[Any],
    method: str = "ties",
    weights: Sequence[float] | None = None,
    *,
    rules: Rules = (),
    seed: int = 0,
    threads: int | None = None,
    **params: Any,
) -> dict[str, Tensor]:
    """Merge without data: every tensor of the base, in its dtype and order.

    `base` and every expert are whatever `Checkpoint.open` takes: a state dict, an `nn.Module`, a path, a hub id;
    an expert may also be an adapter on the base.
    Experts without names are called "1", "2", …. `weights` and `params` are the method's (`supermerge methods NAME`).
    """
    if isinstance(experts, (str, bytes)) or not isinstance(experts, Iterable):
        raise UsageError(
            f"experts: expected a mapping or a sequence of experts, found {type(experts).__name__}.",
            hint="One expert is written [expert].",
        )
    if weights is not None and not isinstance(weights, Iterable):
        raise UsageError(f"weights: expected a number per expert, found {weights!r}.", hint="Such as [0.5, 0.5].")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, found {threads}.")
    named = experts if isinstance(experts, Mapping) else {str(i): expert for i, expert in enumerate(experts, 1)}
    with ExitStack() as stack:
        opened = stack.enter_context(Checkpoint.open(base))
        matched = match(opened, {name: open_expert(ref, opened, stack) for name, ref in named.items()})
        sink = StateDict(list(opened.tensors.values()))
        merge_into(sink, method, matched, params=params, weights=weights, rules=rules, seed=seed, threads=threads)
    return sink.tensors
