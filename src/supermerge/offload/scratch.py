"""Room for tensors in a file that no name leads to: whatever ends the process, nothing of it is left."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from tempfile import mkstemp

from torch import Tensor

from supermerge.errors import ResourceError, UsageError

_LARGEST = 1 << 30  # Linux cuts longer reads and writes at 2 GiB, macOS refuses them
_PAGE = 4096


class Scratch:
    """A file in `directory` (the system's temporary one by default), read and written at offsets."""

    def __init__(self, directory: Path | None = None) -> None:
        self._descriptor, name = mkstemp(dir=directory, prefix=".supermerge-")
        os.unlink(name)
        self._end = 0
        self.bytes_read = self.bytes_written = 0

    def reserve(self, nbytes: int) -> int:
        """The offset of room for `nbytes` bytes, which hold zeros."""
        offset, self._end = self._end, self._end + -(-nbytes // _PAGE) * _PAGE
        return offset

    def write(self, offset: int, values: Tensor) -> None:
        """The bytes of a contiguous tensor in memory. ResourceError where the disk is full."""
        memory = _bytes_of(values)
        done = 0
        while done < len(memory):
            try:
                done += os.pwrite(self._descriptor, memory[done : done + _LARGEST], offset + done)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                raise ResourceError(
                    f"The disk is full: the weights of an offloaded model need {self._end} bytes for a while.",
                    hint="Free some space where the output goes, or allow more memory.",
                ) from error
        self.bytes_written += len(memory)

    def read(self, offset: int, into: Tensor) -> None:
        """Fill a contiguous tensor in memory."""
        memory = _bytes_of(into)
        done = 0
        while done < len(memory):
            count = os.preadv(self._descriptor, [memory[done : done + _LARGEST]], offset + done)
            if count == 0:  # reserved, never written
                memory[done:] = bytes(len(memory) - done)
                break
            done += count
        self.bytes_read += len(memory)

    def close(self) -> None:
        """Give the disk its room back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def _bytes_of(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory; not through numpy, which makes storages unable to change their size."""
    if not tensor.is_contiguous():
        raise UsageError(f"A tensor of shape {list(tensor.shape)} is not contiguous.")
    if not tensor.numel():
        return memoryview(b"")
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
