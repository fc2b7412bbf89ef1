"""Small files of tensors, written and read whole: coefficients, heads, the state of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from supermerge.checkpoint.files import OpenFile, open_safetensors
from supermerge.checkpoint.hashing import hash_tensor, tensor_bytes
from supermerge.checkpoint.header import build_header, read_header
from supermerge.checkpoint.output_file import OutputFile, disk_error
from supermerge.checkpoint.source import TensorInfo
from supermerge.checkpoint.writer import PYTORCH


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = PYTORCH) -> dict[str, str]:
    """Write one safetensors file and give tensor name -> BLAKE3 in hexadecimal.

    An older file of that name is replaced at once: a file that exists is whole. Raises ResourceError.
    """
    infos = [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    head, header = build_header(infos, metadata)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        file = OutputFile(partial, header.nbytes)
        try:
            file.write(memoryview(head), 0)
            for name, tensor in tensors.items():
                file.write(tensor_bytes(tensor), header.offsets[name])
            file.finish()
            os.replace(partial, path)
        finally:
            file.close()
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error
    return {name: hash_tensor(tensor) for name, tensor in tensors.items()}


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of one safetensors file and its metadata. Raises CheckpointError when it is missing or corrupt."""
    file = OpenFile(path)
    try:
        metadata = read_header(file.descriptor, path).metadata
    finally:
        file.close()
    store = open_safetensors(str(path), [path])
    try:
        return {name: store.read(name) for name in store.tensors}, metadata
    finally:
        store.close()
