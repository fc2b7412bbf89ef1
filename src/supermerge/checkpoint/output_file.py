"""One new file, sized when it is made and written at offsets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from supermerge.errors import ResourceError


class OutputFile:
    """A file that did not exist before, of `nbytes` bytes. Its mode follows the umask.

    Every failure of the disk is a ResourceError that names the file.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path = path
        self.nbytes = nbytes
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            _reserve(self._descriptor, nbytes)
        except OSError as error:
            self.close()
            raise disk_error(path, error) from error

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], offset + done)
        except OSError as error:
            raise disk_error(self.path, error) from error

    def finish(self) -> None:
        """Wait until the bytes are on the disk, and close."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise disk_error(self.path, error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _reserve(descriptor: int, nbytes: int) -> None:
    """Claim the space now, so that a full disk shows before hours of work rather than after."""
    if nbytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, nbytes)


def disk_error(path: Path, error: OSError) -> ResourceError:
    """What to raise when `path` cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Free some space, or write to another disk." if full else "Check the directory and its permissions."
    return ResourceError(f"{path}: cannot be written: {error.strerror}", hint=hint)
