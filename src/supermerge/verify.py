"""Verify a merged model: re-read everything in its directory and compare it with the lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supermerge.checkpoint import Buffer, Checkpoint, hash_tensor
from supermerge.errors import RefusedError
from supermerge.events import emit, phase
from supermerge.lock import LOCK_NAME, Lock, hash_file

# An error names at most so many differences; their number is always given.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Verified:
    """What was re-read and found to be as the lock file says."""

    files: int
    tensors: int
    bytes_read: int


def verify(directory: str | os.PathLike[str]) -> Verified:
    """Compare every file and tensor of `directory` with its lock file.

    RefusedError names what differs, is missing or was added; CheckpointError where there is no lock file.
    """
    path = Path(directory)
    lock = Lock.read(path)
    with phase("verify"):
        differences = list(_file_differences(path, lock))
        _refuse(path, differences)
        with Checkpoint.open(path) as checkpoint:
            _refuse(path, list(_tensor_differences(checkpoint, lock)))
            files = [path / "recipe.yaml", *(path / name for name in lock.output.files)]
            size = sum(file.stat().st_size for file in files)
            return Verified(len(files), len(checkpoint.tensors), size + checkpoint.bytes_read)


def _refuse(path: Path, differences: list[str]) -> None:
    if differences:
        more = len(differences) - _NAMED
        listed = "\n".join(differences[:_NAMED]) + (f"\n… and {more} more" if more > 0 else "")
        raise RefusedError(
            f"{path}: not as {LOCK_NAME} says:\n{listed}",
            hint="Files were changed or damaged after the run. Run the recipe again to get the model back.",
        )


def _file_differences(path: Path, lock: Lock) -> Iterator[str]:
    files = {"recipe.yaml": lock.recipe, **lock.output.files}
    for number, (name, expected) in enumerate(files.items(), start=1):
        file = path / name
        if not file.is_file():
            yield f"{name} is missing"
        elif hash_file(file) != expected:
            yield f"{name} has changed"
        emit("progress", phase="verify", done=number, total=len(files), unit="files")
    for file in sorted(path.rglob("*.safetensors")):
        name = file.relative_to(path).as_posix()
        if lock.output.files and name not in lock.output.files:
            yield f"{name} was added"


def _tensor_differences(checkpoint: Checkpoint, lock: Lock) -> Iterator[str]:
    expected, buffer = lock.output.tensors, Buffer()
    for number, name in enumerate(checkpoint.tensors, start=1):
        if name not in expected:
            yield f"tensor {name} was added"
        elif hash_tensor(checkpoint.read(name, buffer=buffer)) != expected[name]:
            yield f"tensor {name} has changed"
        emit("progress", phase="verify", done=number, total=len(checkpoint.tensors), unit="tensors")
    for name in expected.keys() - checkpoint.tensors.keys():
        yield f"tensor {name} is missing"
