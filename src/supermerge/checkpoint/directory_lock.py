"""One writer per output directory: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from supermerge.checkpoint.output_file import disk_error
from supermerge.errors import ResourceError


class DirectoryLock:
    """A hidden file beside the directory, locked from `acquire` to `release`."""

    def __init__(self, path: Path, guarded: Path) -> None:
        self.path = path
        self.guarded = guarded
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock; raises ResourceError at once if another run has it."""
        while self._descriptor < 0:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise disk_error(self.path, error) from error
            if self._lock(descriptor):
                self._descriptor = descriptor
            else:  # its last holder removed the file between our opening and our locking it
                os.close(descriptor)

    def _lock(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ResourceError(
                f"{self.guarded}: another run is writing it", hint="Wait for that run, or choose another output."
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise disk_error(self.path, error) from error
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go and leave nothing behind; harmless when not held."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1
