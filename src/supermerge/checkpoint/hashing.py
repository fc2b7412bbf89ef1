"""BLAKE3 of tensors: the identity of a tensor's bytes as the lock file records it."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import blake3
import torch
from torch import Tensor

from supermerge.checkpoint.files import OpenFile
from supermerge.checkpoint.header import read_header
from supermerge.checkpoint.source import Buffer, TensorSource

_PIECE_ELEMENTS = 1 << 20
_PIECE_BYTES = 1 << 19  # stays in the processor's cache from one hash to the other


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The little-endian bytes of a tensor in row order; a view where the tensor is contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def hash_tensor(tensor: Tensor) -> str:
    """BLAKE3, in hexadecimal, of the tensor's bytes. Shape and dtype are not part of it."""
    return blake3.blake3(tensor_bytes(tensor)).hexdigest()


def hash_stored(source: TensorSource, name: str, buffer: Buffer | None = None) -> str:
    """The same for a stored tensor, read in pieces, whatever its size."""
    hasher, memory, numel = blake3.blake3(), buffer or Buffer(), source.tensors[name].numel
    for start in range(0, numel, _PIECE_ELEMENTS):
        piece = source.read_flat(name, start, min(start + _PIECE_ELEMENTS, numel), buffer=memory)
        hasher.update(tensor_bytes(piece))
    return hasher.hexdigest()


def hash_shard(path: Path, wanted: Container[str]) -> tuple[str, dict[str, str]] | None:
    """The same for a whole safetensors file, and for every tensor in it, in one reading; None if none is `wanted`."""
    file = OpenFile(path)
    try:
        header = read_header(file.descriptor, path)
        if not any(name in wanted for name in header.tensors):
            return None
        whole, memory, tensors = blake3.blake3(), Buffer(), {}

        def read(hasher: blake3.blake3, start: int, stop: int) -> None:
            for place in range(start, stop, _PIECE_BYTES):
                piece = memory.take(min(_PIECE_BYTES, stop - place))
                file.read_into(piece, place)
                hasher.update(piece)
                whole.update(piece)

        read(blake3.blake3(), 0, min(header.offsets.values(), default=header.nbytes))
        for name, info in header.tensors.items():  # in the order in which they lie, without gaps
            hasher = blake3.blake3()
            read(hasher, header.offsets[name], header.offsets[name] + info.nbytes)
            tensors[name] = hasher.hexdigest()
    finally:
        file.close()
    return whole.hexdigest(), tensors
