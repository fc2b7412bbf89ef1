"""The one model in memory: built from the base's config, its parameters filled tensor by tensor from any source."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from supermerge.checkpoint import Buffer, Checkpoint, TensorSource
from supermerge.distributed import is_sharded, local, rows_of
from supermerge.offload import Offload, offload_of
from supermerge.tasks.binding import Binding, Origin
from supermerge.tasks.bound import Bound
from supermerge.tasks.completed import completed
from supermerge.tasks.models import build, fill_buffers, is_pooler, place, read_config, remove_pooler


@dataclass(frozen=True, slots=True)
class Host:
    """`model` holds the parameters that every task shares; `binding` says which file tensors of `base` they are."""

    model: PreTrainedModel
    binding: Binding
    base: TensorSource
    poolers: tuple[str, ...]
    """File tensors of the base that belong to a pooler which the host leaves to the tasks."""
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        kind: Any,
        base: Checkpoint,
        *,
        without_pooler: bool,
        dtype: torch.dtype,
        device: torch.device,
        offload: Offload | None = None,
        empty: bool = False,
    ) -> Self:
        """Build the class that `kind` (an Auto class, or a model class) picks, and load the base's weights into it.

        With `offload` the parameters lie in its file from the beginning; with `empty` nothing is loaded yet. A pooler
        that the base lacks, or that the tasks bring themselves (`without_pooler`), is left out. Raises CheckpointError
        for any other tensor that the base lacks.
        """
        model = build(kind, read_config(base.config, base.label), base.label, dtype)
        binding = Binding.of(model, base)
        whole = binding.file_names
        if without_pooler or any(is_pooler(name) for name in binding.missing):
            remove_pooler(model)
            binding = Binding.of(model, base)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        binding.require(parameters, base.label)
        _allocate(model, binding, device, offload)
        fill_buffers(model, device, {})
        used = set(binding.file_names)
        poolers = tuple(name for name in whole if name not in used)
        host = cls(model, binding, base, poolers, device, dtype)
        if not empty:
            host.load(base)
        return host

    def bind(self, source: TensorSource) -> Bound:
        """`source`, which has the base's file names, under the names of `model.state_dict()`.

        What it lacks of the backbone is read from the base.
        """
        return Bound(self.binding, completed(source, self.base, self.binding))

    @torch.no_grad()
    def load(self, source: TensorSource, only: Collection[str] | None = None) -> None:
        """Overwrite the weights with those of `source`, which has the base's file names; one tensor at a time.

        With `only`, those that are made of file tensors with these names. Of a sharded tensor this process's rows.
        """
        bound, buffer = self.bind(source), Buffer()
        wanted = None if only is None else set(only)
        done: set[int] = set()
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            chosen = name in bound.tensors and (wanted is None or wanted.issuperset(self.binding.files(name)))
            if chosen and id(tensor) not in done:
                rows = rows_of(name, tensor) if is_sharded(tensor) else None
                _overwrite(local(tensor), bound.read(name, rows, buffer=buffer))
                done.add(id(tensor))


def _overwrite(tensor: Tensor, values: Tensor) -> None:
    offload = offload_of(tensor)
    if offload is None:
        tensor.copy_(values)
    else:
        offload.store(tensor, values)


def _allocate(model: PreTrainedModel, binding: Binding, device: torch.device, offload: Offload | None) -> None:
    """Give every tensor that the file holds memory of its own, the aliases of a tied one the same."""
    by_origin: dict[Origin, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for name, made in binding.made.items():
        if made.origin not in by_origin:
            memory = torch.empty_like(state[name], device=device, requires_grad=False)
            by_origin[made.origin] = nn.Parameter(memory) if isinstance(state[name], nn.Parameter) else memory
            if offload is not None and isinstance(state[name], nn.Parameter):
                offload.take(by_origin[made.origin], empty=True)
        place(model, name, by_origin[made.origin])
