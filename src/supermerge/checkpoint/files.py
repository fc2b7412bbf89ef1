"""Tensors that lie in files at known offsets, read with `preadv` into reused buffers.

Never a mapping of the file: its pages would count as the process's own memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType

import blake3
from torch import Tensor

from supermerge.checkpoint.header import read_header
from supermerge.checkpoint.source import Buffer, TensorInfo, check_flat, info_of, row_range
from supermerge.errors import CheckpointError, ResourceError, UsageError

HEAD_BYTES = 1 << 20
LARGEST_READ = 1 << 30  # Linux cuts longer reads at 2 GiB, macOS refuses them


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells cheaply that a file is still the one that was opened; `head` is the BLAKE3 of its first mebibyte."""

    path: Path
    size: int
    mtime_ns: int
    head: str


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor and where its bytes begin in an open file."""

    info: TensorInfo
    file: OpenFile
    offset: int


class OpenFile:
    """One file held open for reading at offsets by any number of threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A pipe would be waited for; opened like this it can be looked at.
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise ResourceError(
                    f"{path}: too many files are open already", hint="Raise the limit with `ulimit -n 65536`."
                ) from error
            raise CheckpointError(
                f"{path}: cannot be opened: {error.strerror}", hint="Check the path and its permissions."
            ) from error
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            self.close()
            raise CheckpointError(
                f"{path}: is not a plain file", hint="Weights are read at offsets: give a file on a disk."
            )

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` with the bytes from `offset`."""
        if self.descriptor < 0:
            raise UsageError(f"{self.path}: is closed")
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self.descriptor, [target[done : done + LARGEST_READ]], offset + done)
            except OSError as error:
                raise CheckpointError(
                    f"{self.path}: cannot be read at byte {offset + done}: {error.strerror}",
                    hint="The disk or the connection to it may be failing.",
                ) from error
            if count == 0:
                raise CheckpointError(
                    f"{self.path}: ended at byte {offset + done} while being read",
                    hint="Something changed the file: leave checkpoints alone while they are being merged.",
                )
            done += count

    def identity(self) -> FileIdentity:
        """The file's identity as it is now."""
        status = os.fstat(self.descriptor)
        head = bytearray(min(status.st_size, HEAD_BYTES))
        self.read_into(memoryview(head), 0)
        return FileIdentity(self.path, status.st_size, status.st_mtime_ns, blake3.blake3(head).hexdigest())

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class FileStore:
    """A TensorSource over spans of open files. `identities` says which files, as they were when opened."""

    def __init__(self, label: str, spans: Iterable[Span], identities: tuple[FileIdentity, ...]) -> None:
        self.label = label
        self.identities = identities
        self._spans = {span.info.name: span for span in spans}
        self._infos = MappingProxyType({name: span.info for name, span in self._spans.items()})
        self._lock = Lock()
        self._bytes_read = 0

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in the order in which they lie in the files."""
        return self._infos

    @property
    def bytes_read(self) -> int:
        """Bytes of tensors read so far."""
        return self._bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype."""
        start, stop, shape = row_range(info_of(self, name), rows)
        return self.read_flat(name, start, stop, buffer=buffer).view(shape)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        info = info_of(self, name)
        check_flat(info, start, stop)
        span, size = self._spans[name], info.dtype.itemsize
        memory = buffer if buffer is not None else Buffer()
        nbytes = (stop - start) * size
        span.file.read_into(memory.take(nbytes), span.offset + start * size)
        with self._lock:
            self._bytes_read += nbytes
        return memory.tensor(info.dtype, stop - start)

    def close(self) -> None:
        """Close the files."""
        for file in {id(span.file): span.file for span in self._spans.values()}.values():
            file.close()


def open_safetensors(label: str, paths: Iterable[Path], weight_map: Mapping[str, str] | None = None) -> FileStore:
    """A store over one or more safetensors files.

    `weight_map` (tensor name -> file name), from an index file, must agree with the headers.
    Raises CheckpointError for a corrupt header, a name in two files, or an index that says something else.
    """
    files: list[OpenFile] = []
    spans: dict[str, Span] = {}
    identities: list[FileIdentity] = []
    try:
        for path in paths:
            file = OpenFile(path)
            files.append(file)
            header = read_header(file.descriptor, path)
            identities.append(file.identity())
            for name, info in header.tensors.items():
                if name in spans:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} is also in {spans[name].file.path.name}",
                        hint="Keep the shards of one checkpoint only in the directory.",
                    )
                spans[name] = Span(info, file, header.offsets[name])
        if weight_map is not None:
            _check_index(label, spans, weight_map)
    except BaseException:
        for file in files:
            file.close()
        raise
    return FileStore(label, spans.values(), tuple(identities))


def _check_index(label: str, spans: Mapping[str, Span], weight_map: Mapping[str, str]) -> None:
    for name, file in weight_map.items():
        if name not in spans or spans[name].file.path.name != file:
            where = f"in {spans[name].file.path.name}" if name in spans else "in no shard"
            raise CheckpointError(
                f"{label}: the index puts tensor {name!r} in {file}, but it is {where}",
                hint="Index and shards come from different checkpoints: copy or download them together again.",
            )
    for name, span in spans.items():
        if name not in weight_map:
            raise CheckpointError(
                f"{label}: {span.file.path.name} has tensor {name!r}, which the index does not name",
                hint="Index and shards come from different checkpoints: copy or download them together again.",
            )


def identify(path: Path) -> FileIdentity:
    """The identity of the file that `path` names now; raises CheckpointError when it cannot be read."""
    file = OpenFile(path)
    try:
        return file.identity()
    finally:
        file.close()
