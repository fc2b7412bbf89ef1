"""What gives tensors by name: the protocol every reader follows, and the byte buffer readers reuse."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from supermerge.errors import CheckpointError, UsageError

HUGE_PAGE = 1 << 21


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's name, storage dtype and shape, as its header says."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in storage dtype."""
        return self.numel * self.dtype.itemsize

    @property
    def is_floating(self) -> bool:
        """Whether it can be merged: floating point of any width, fp8 included."""
        return self.dtype.is_floating_point


class TensorSource(Protocol):
    """Everything that gives tensors by name.

    `read` and `read_flat` give storage dtype on the CPU. What they return is for reading only: it may be a view of
    memory that others hold, or of `buffer`, and then lasts until the buffer's next use.
    """

    @property
    def label(self) -> str:
        """How the user named it, for messages."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor it can give, in the order that is quickest to read."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes given so far."""
        ...

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension: [*shape] or [rows, *shape[1:]]."""
        ...

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor: [stop - start]."""
        ...


class Buffer:
    """Bytes to read into again and again: page-aligned, anonymous, growing to the largest use.

    A tensor seen through it is overwritten by its next use, never freed under its reader. Not for several threads.
    It starts with `memory`, where given, and leaves that alone once more is needed.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        self._memory: mmap.mmap | memoryview | None = memory

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self._memory) if self._memory else 0

    def take(self, nbytes: int) -> memoryview:
        """The first `nbytes` bytes, writable; grows if needed."""
        if self._memory is None or len(self._memory) < nbytes:
            size = -(-max(nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory = mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):  # first use is then half as slow
                mapped.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(self._memory)[:nbytes]

    def tensor(self, dtype: torch.dtype, numel: int) -> Tensor:
        """The first bytes seen as a 1-D tensor of `numel` elements."""
        self.take(numel * dtype.itemsize)
        if numel == 0:
            return torch.empty(0, dtype=dtype)
        assert self._memory is not None
        return torch.frombuffer(self._memory, dtype=dtype, count=numel)


def info_of(source: TensorSource, name: str) -> TensorInfo:
    """The header entry of one tensor; raises CheckpointError when the source has none of that name."""
    info = source.tensors.get(name)
    if info is None:
        raise CheckpointError(
            f"{source.label}: there is no tensor {name!r} among its {len(source.tensors)}",
            hint="List its tensors with `supermerge inspect`.",
        )
    return info


def row_range(info: TensorInfo, rows: slice | None) -> tuple[int, int, tuple[int, ...]]:
    """A range of rows as a flat range: (start, stop) in elements, and the shape of what lies between."""
    if rows is None:
        return 0, info.numel, info.shape
    if not info.shape or rows.step not in (None, 1):
        raise UsageError(f"rows {rows} of {info.name!r}, shape {list(info.shape)}: need a dimension and step 1")
    first, last, _ = rows.indices(info.shape[0])
    count, width = max(last - first, 0), math.prod(info.shape[1:])
    return first * width, (first + count) * width, (count, *info.shape[1:])


def check_flat(info: TensorInfo, start: int, stop: int) -> None:
    """Refuse a flat range that leaves the tensor."""
    if not 0 <= start <= stop <= info.numel:
        raise UsageError(f"elements {start} to {stop} of tensor {info.name!r}: it has {info.numel}")
