"""Tensors of which every process holds some rows, as FSDP2 (`fully_shard`) deals them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supermerge.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, to be written in place: the tensor itself where it is not sharded."""
    shard: Any = tensor
    return shard.detach().to_local() if is_sharded(tensor) else tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor; a plain model never imports what those are."""
    return hasattr(tensor, "device_mesh")


def rows_of(name: str, tensor: Tensor) -> slice:
    """The rows of a sharded tensor that FSDP2 gives this process: as `torch.chunk` cuts them.

    UsageError where it is not dealt out by its rows over all processes alike.
    """
    import torch.distributed as dist

    shard: Any = tensor
    mesh, placements = shard.device_mesh, shard.placements
    by_rows = len(placements) == 1 and placements[0].is_shard(0)
    if not by_rows or mesh.size() != dist.get_world_size():
        raise UsageError(
            f"{name} is placed as {placements} over {mesh.size()} processes; expected its rows, over all of them.",
            hint="Use `fully_shard` with its defaults.",
        )
    chunk = -(-tensor.shape[0] // mesh.size())
    start = min(mesh.get_local_rank() * chunk, tensor.shape[0])
    return slice(start, min(start + chunk, tensor.shape[0]))
