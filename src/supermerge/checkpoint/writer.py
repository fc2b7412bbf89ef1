"""Writes safetensors shards tensor by tensor, or chunk by chunk, with no more than one of them in memory."""

from __future__ import annotations

import errno
import json
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import blake3
from torch import Tensor

from supermerge.checkpoint.files import OpenFile, open_safetensors
from supermerge.checkpoint.hashing import tensor_bytes
from supermerge.checkpoint.header import Header, build_header
from supermerge.checkpoint.source import TensorInfo, check_flat
from supermerge.errors import ResourceError, SupermergeError, UsageError
from supermerge.events import emit

PYTORCH: Mapping[str, str] = {"format": "pt"}  # transformers refuses files without it
REREAD_BYTES = 1 << 22


class OutputFile:
    """One new file, sized when made, written at offsets. Its mode follows the umask."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path = path
        self.nbytes = nbytes
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            _reserve(self._descriptor, nbytes)
        except OSError as error:
            self.close()
            raise _write_error(path, error) from error

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], offset + done)
        except OSError as error:
            raise _write_error(self.path, error) from error

    def finish(self) -> None:
        """Wait until the bytes are on the disk, and close."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _write_error(self.path, error) from error
        finally:
            self.close()
        emit("written", path=str(self.path), bytes=self.nbytes)

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _reserve(descriptor: int, nbytes: int) -> None:
    """Claim the disk space now, so that a full disk shows before hours of work rather than after."""
    if hasattr(os, "posix_fallocate") and nbytes:
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, nbytes)


def _write_error(path: Path, error: OSError) -> SupermergeError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Free some space, or write to another disk." if full else "Check the directory and its permissions."
    return ResourceError(f"{path}: cannot be written: {error.strerror}", hint=hint)


@dataclass(slots=True)
class _Progress:
    """Which elements of one tensor are written, and the hash of as many as came in order."""

    info: TensorInfo
    file: OutputFile
    offset: int
    hasher: blake3.blake3 = field(default_factory=blake3.blake3)
    hashed: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def claim(self, start: int, stop: int) -> None:
        """Note a range as written; raises UsageError if part of it already is."""
        at = bisect_left(self.ranges, (start, stop))
        before, after = self.ranges[at - 1 : at] if at else [], self.ranges[at : at + 1]
        if (before and before[0][1] > start) or (after and after[0][0] < stop):
            raise UsageError(f"elements {start} to {stop} of tensor {self.info.name!r} are written twice")
        if before and before[0][1] == start:
            start, at = before[0][0], at - 1
        if after and after[0][0] == stop:
            stop = after[0][1]
        self.ranges[at : at + len(before) * (bool(before) and start == before[0][0]) + len(after)] = [(start, stop)]

    @property
    def complete(self) -> bool:
        """Whether every element is written."""
        return self.ranges == [(0, self.info.numel)] or self.info.numel == 0
