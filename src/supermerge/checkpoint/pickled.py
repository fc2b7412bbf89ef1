"""PyTorch's own files (.bin, .pt, .pth): opened only when allowed, and then tensors only, never code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supermerge.checkpoint.files import FileStore, OpenFile, Span
from supermerge.checkpoint.memory import MemoryStore
from supermerge.checkpoint.source import TensorInfo
from supermerge.errors import CheckpointError


def open_pickles(label: str, paths: Iterable[Path]) -> FileStore | MemoryStore:
    """The tensors of one or more files, read from them when asked for, like safetensors.

    Files that keep them otherwise than as plain bytes (compressed, transposed, in the format of before 2020) are held
    in memory whole. Raises CheckpointError naming the file that cannot be read.
    """
    files = [OpenFile(path) for path in paths]
    try:
        layouts = [_layout(file.path) for file in files]
        if all(layout is not None for layout in layouts):
            spans = [
                Span(info, file, offset)
                for file, layout in zip(files, layouts, strict=True)
                for info, offset in layout or ()
            ]
            return FileStore(label, spans, tuple(file.identity() for file in files))
        tensors = {name: tensor for file in files for name, tensor in _load(file.path).items()}
    except BaseException:
        for file in files:
            file.close()
        raise
    for file in files:
        file.close()
    return MemoryStore(label, tensors)


def _layout(path: Path) -> list[tuple[TensorInfo, int]] | None:
    """Every tensor and its first byte in the file, or None if some tensor's bytes do not lie there in order."""
    if not _is_plain(path):
        return None
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes seconds, so only where a pickle is read

    with FakeTensorMode():  # gives shapes, and where the bytes are, without reading them
        tensors = _load(path)
    size = path.stat().st_size
    found: list[tuple[TensorInfo, int]] = []
    for name, tensor in tensors.items():
        offset: int | None = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
        if offset is None or not tensor.is_contiguous():
            return None
        info = TensorInfo(name, tensor.dtype, tuple(tensor.shape))
        start = offset + int(tensor.storage_offset()) * tensor.dtype.itemsize
        if start + info.nbytes > size:
            return None
        found.append((info, start))
    return found


def _is_plain(path: Path) -> bool:
    """Whether the file is an archive of uncompressed little-endian records."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return False
            return all(archive.read(entry) == b"little" for entry in entries if entry.filename.endswith("/byteorder"))
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OSError):
        return False


def _load(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, AttributeError, EOFError, OSError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be read as a file of tensors: {reason}",
            hint="It is corrupt, or holds more than tensors: save the model as safetensors.",
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not named tensors", hint="Save the model's state_dict()."
        )
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: {name!r} is a {type(tensor).__name__}, not a named tensor",
                hint="Save the model's state_dict() alone, without optimiser or counters.",
            )
    return content
