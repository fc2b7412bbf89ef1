"""Writes a checkpoint's shards tensor by tensor, or chunk by chunk, with no more than one of them in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import blake3
from torch import Tensor

from supermerge.checkpoint.files import open_safetensors
from supermerge.checkpoint.hashing import hash_stored, tensor_bytes
from supermerge.checkpoint.header import build_header
from supermerge.checkpoint.output_file import OutputFile
from supermerge.checkpoint.shards import INDEX_NAME, index_text, split_into_shards
from supermerge.checkpoint.source import TensorInfo, check_flat
from supermerge.distributed import ALONE, Peers, deal
from supermerge.errors import UsageError
from supermerge.events import emit

PYTORCH: Mapping[str, str] = {"format": "pt"}  # transformers refuses a file that does not say so


@dataclass(slots=True)
class _Target:
    """One tensor's place, which of its elements are written, and the hash of as many as came in order."""

    info: TensorInfo
    file: OutputFile
    offset: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    hasher: blake3.blake3 = field(default_factory=blake3.blake3)
    hashed: int = 0

    def claim(self, start: int, stop: int) -> None:
        """Note a range as written; raises UsageError if part of it already is."""
        first = last = bisect_left(self.ranges, (start, stop))
        before = self.ranges[first - 1] if first else (-1, -1)
        after = self.ranges[last] if last < len(self.ranges) else (self.info.numel + 1, self.info.numel + 1)
        if before[1] > start or after[0] < stop:
            raise UsageError(f"elements {start} to {stop} of tensor {self.info.name!r} are written twice")
        if before[1] == start:
            first, start = first - 1, before[0]
        if after[0] == stop:
            last, stop = last + 1, after[1]
        self.ranges[first:last] = [(start, stop)]

    @property
    def missing(self) -> int:
        """How many elements are still to be written."""
        return self.info.numel - sum(stop - start for start, stop in self.ranges)


class ShardWriter:
    """Files of safetensors in `directory`, laid out before the first tensor comes, filled in any order.

    `infos` says what will be written, in the order in which it is dealt out to shards of `shard_size` bytes; with
    `single` all goes to the one file of that name. Any thread may write any part. Of several processes (`peers`), each
    writes whole files of about as many bytes: the tensors `names`. `close` checks that everything came, waits for the
    disk, writes the index (in the first process), and gives every tensor's hash. Leaving a `with` block without `close`
    (an exception did it) leaves incomplete files behind: write into an OutputDirectory's staging directory.
    """

    def __init__(
        self,
        directory: Path,
        infos: Sequence[TensorInfo],
        *,
        shard_size: int,
        single: str | None = None,
        metadata: Mapping[str, str] = PYTORCH,
        peers: Peers = ALONE,
    ) -> None:
        self.directory = directory
        self._lock = Lock()
        self._shards = {single: list(infos)} if single else split_into_shards(infos, shard_size)
        self._indexed = len(self._shards) > 1 and peers.rank == 0
        self._own = deal({name: _nbytes(shard) for name, shard in self._shards.items()}, peers.size)[peers.rank]
        self._files: list[OutputFile] = []
        self._targets: dict[str, _Target] = {}
        try:
            for name in self._own:
                self._targets.update(_lay_out(directory / name, self._shards[name], metadata, self._files))
        except BaseException:
            self._release()
            raise
        announced = sum(len(self._shards[name]) for name in self._own)
        if len(self._targets) != announced:
            self._release()
            raise UsageError(f"{directory}: {announced} tensors are to be written under {len(self._targets)} names")

    @property
    def names(self) -> Set[str]:
        """The tensors that this process writes."""
        return self._targets.keys()

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a whole tensor, in its dtype of `infos`."""
        info = self._target(name).info
        if tuple(tensor.shape) != info.shape:
            raise UsageError(f"tensor {name!r} has shape {list(tensor.shape)}, announced was {list(info.shape)}")
        self.write_flat(name, 0, tensor.reshape(-1))

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Write elements of the flattened tensor from `start` on: [n] elements, n the length of `tensor`."""
        target = self._target(name)
        if tensor.dtype != target.info.dtype or tensor.ndim != 1:
            raise UsageError(
                f"tensor {name!r}: given is {tensor.dtype} with {tensor.ndim} dimensions, "
                f"announced was flat {target.info.dtype}"
            )
        stop = start + tensor.numel()
        check_flat(target.info, start, stop)
        if start == stop:
            return
        with self._lock:
            target.claim(start, stop)
        data = tensor_bytes(tensor)
        target.file.write(data, target.offset + start * target.info.dtype.itemsize)
        if start == target.hashed:
            target.hasher.update(data)
            target.hashed = stop

    def close(self) -> dict[str, str]:
        """Finish the files and write the index. Gives tensor name -> BLAKE3 in hexadecimal.

        Raises UsageError when a tensor was not, or not wholly, written.
        """
        missing = {name: target.missing for name, target in self._targets.items() if target.missing}
        if missing:
            name, count = next(iter(missing.items()))
            self._release()
            raise UsageError(
                f"{self.directory}: {len(missing)} tensors are not wholly written: {name!r} lacks {count} elements"
            )
        for file in self._files:
            file.finish()
        if self._indexed:
            text = index_text(self._shards).encode("utf-8")
            index = OutputFile(self.directory / INDEX_NAME, len(text))
            index.write(memoryview(text), 0)
            index.finish()
            self._files.append(index)
        for file in self._files:
            emit("written", path=str(file.path), bytes=file.nbytes)
        return self._hashes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _target(self, name: str) -> _Target:
        target = self._targets.get(name)
        if target is None:
            raise UsageError(f"{self.directory}: tensor {name!r} was not announced")
        return target

    def _hashes(self) -> dict[str, str]:
        """The running hashes, and those of tensors whose chunks came out of order, read again."""
        with_gaps = [name for name, target in self._targets.items() if target.hashed != target.info.numel]
        hashes = {name: target.hasher.hexdigest() for name, target in self._targets.items()}
        if with_gaps:
            store = open_safetensors(str(self.directory), [self.directory / name for name in self._own])
            try:
                hashes.update({name: hash_stored(store, name) for name in with_gaps})
            finally:
                store.close()
        return hashes

    def _release(self) -> None:
        for file in self._files:
            file.close()


def _nbytes(infos: Sequence[TensorInfo]) -> int:
    return sum(info.nbytes for info in infos)


def _lay_out(
    path: Path, infos: Sequence[TensorInfo], metadata: Mapping[str, str], files: list[OutputFile]
) -> dict[str, _Target]:
    head, header = build_header(infos, metadata)
    file = OutputFile(path, header.nbytes)
    files.append(file)
    file.write(memoryview(head), 0)
    return {name: _Target(info, file, header.offsets[name]) for name, info in header.tensors.items()}
