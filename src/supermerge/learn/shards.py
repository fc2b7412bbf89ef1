"""Which rows of a model's tensors this process holds, where FSDP2 (`fully_shard`) has dealt them out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from supermerge.checkpoint import Buffer, TensorSource
from supermerge.checkpoint.source import check_flat, info_of
from supermerge.checkpoint.view import View
from supermerge.distributed import ALONE, Peers, current, is_sharded, rows_of
from supermerge.errors import UsageError

_NEEDED = ("set_gradient_divide_factor", "set_force_sum_reduction_for_comms", "set_reduce_scatter_unused_params")
_NEEDED_TORCH = "2.13"


@dataclass(frozen=True, slots=True)
class Shards:
    """The rows, by name, of the tensors that are sharded; those that are not are held whole."""

    rows: Mapping[str, slice] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Shards:
        """Those of a model. UsageError where tensors are not dealt out by their rows over all processes alike."""
        return cls({name: rows_of(name, tensor) for name, tensor in tensors.items() if is_sharded(tensor)})

    def source(self, source: TensorSource) -> TensorSource:
        """The same rows of a checkpoint."""
        return Sliced(source, self.rows) if self.rows else source

    def coefficients(self, name: str, c: Tensor) -> Tensor:
        """Those of `c`, `[k]` or `[k, rows]`, that belong to the rows held here."""
        return c if c.dim() == 1 or name not in self.rows else c[:, self.rows[name]]

    def whole(self, name: str, dc: Tensor, like: Tensor) -> Tensor:
        """The products `dc` of the rows held here, in the shape of `like`: zero for the others, as in a sum's term."""
        if dc.dim() == 1 or name not in self.rows:
            return dc
        found = like.new_zeros(like.shape)
        found[:, self.rows[name]] = dc
        return found


WHOLE = Shards()
"""Of a model that is not sharded."""


class Sliced(View):
    """A source of which some tensors are only a range of rows."""

    def __init__(self, source: TensorSource, rows: Mapping[str, slice]) -> None:
        infos = dict(source.tensors)
        self._first: dict[str, int] = {}
        for name, part in rows.items():
            shape = infos[name].shape
            infos[name] = replace(infos[name], shape=(part.stop - part.start, *shape[1:]))
            self._first[name] = part.start * math.prod(shape[1:])
        super().__init__(source, infos)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened rows, in storage dtype."""
        check_flat(info_of(self, name), start, stop)
        first = self._first.get(name, 0)
        return self.source.read_flat(name, first + start, first + stop, buffer=buffer)


def peers_of(shards: Shards) -> Peers:
    """Who learns together: the processes of this run, or those over which the caller has sharded the model."""
    if current() is not ALONE or not shards.rows:
        return current()
    from supermerge.distributed.group import DefaultGroup

    return DefaultGroup()


def sum_gradients(model: nn.Module) -> None:
    """Let FSDP add up the gradients of all processes, which it divides by their number otherwise.

    UsageError where the installed torch is older than what this needs.
    """
    from torch.distributed.fsdp import FSDPModule

    lacking = [name for name in _NEEDED if not hasattr(FSDPModule, name)]
    if lacking:
        raise UsageError(
            f"A sharded model is learned with torch {_NEEDED_TORCH} or newer; found torch {torch.__version__}, whose "
            f"FSDPModule has no {lacking[0]}.",
            hint="Install a newer torch, or learn without sharding.",
        )
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # Processes learn from different tasks, which may not use the same parameters.
            module.set_reduce_scatter_unused_params(True)
