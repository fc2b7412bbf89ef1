"""What a statistic was measured on, as hashes: the tensors of the expert, and the examples with their heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from blake3 import blake3

from supermerge.checkpoint import TensorSource
from supermerge.checkpoint.hashing import hash_stored, hash_tensor
from supermerge.errors import CheckpointError
from supermerge.methods import KINDS
from supermerge.tasks.rows import Row

if TYPE_CHECKING:
    from supermerge.tasks.workbench import Workbench


def model_fingerprint(source: TensorSource, names: Sequence[str]) -> str:
    """BLAKE3 over names, shapes and contents of the tensors called `names`; CheckpointError where one is missing."""
    hasher = blake3()
    for name in names:
        if name not in source.tensors:
            raise CheckpointError(
                f"{source.label}: lacks {name!r}, which its statistics were measured on.",
                hint="The statistics belong to another model: delete them, or give them back to theirs.",
            )
        hasher.update(f"{name}\0{list(source.tensors[name].shape)}\0{hash_stored(source, name)}\n".encode())
    return hasher.hexdigest()


def data_fingerprint(kind: str, bench: Workbench, rows: Mapping[str, Sequence[Row]], seed: int) -> str:
    """BLAKE3 over what the model is shown and, for what needs them, labels; how it is encoded; and the heads."""
    hasher = blake3()
    for task, part in rows.items():
        spec = bench.specs[task]
        hasher.update(repr((spec.type, spec.max_length, spec.pooling)).encode())
        for name, tensor in sorted(bench.heads[task].own.items()):
            hasher.update(f"{name}\0{hash_tensor(tensor.cpu())}\n".encode())
        for row in part:
            hasher.update(f"{row.hash}\0{row.label if KINDS[kind].labelled else ''!r}\n".encode())
    if kind.endswith("_sampled"):
        hasher.update(str(seed).encode())
    return hasher.hexdigest()
