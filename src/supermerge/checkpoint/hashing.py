"""BLAKE3 of tensors: the identity of a tensor's bytes as the lock file records it."""

from __future__ import annotations

import blake3
import torch
from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorSource

_PIECE_ELEMENTS = 1 << 20


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
