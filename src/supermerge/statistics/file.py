"""The file of one kind of statistics of one expert: where it lies, what its metadata say, and when it is refused."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from supermerge.cache import cache_directory
from supermerge.checkpoint import Checkpoint, TensorSource, hash_stored, hash_tensor, save_tensors
from supermerge.checkpoint.files import OpenFile
from supermerge.checkpoint.header import read_header
from supermerge.errors import CheckpointError, DataError
from supermerge.methods.measured import KINDS, own_shape
from supermerge.statistics.fingerprints import model_fingerprint

_KEY = "supermerge_statistics"
_SUFFIX = ".safetensors"
MEASURE_AGAIN = "Delete it, and it is measured again."


class About(BaseModel):
    """The metadata: `size` is the root mean square of all elements, `names` the expert's tensors, hashed in `model`.

    `hashes` are BLAKE3 of the statistics' tensors, which `save` fills in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: str
    model: str
    data: str
    examples: int
    size: float = Field(ge=0, allow_inf_nan=False)
    inputs_first: tuple[str, ...]
    names: tuple[str, ...]
    hashes: dict[str, str] = Field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """As a safetensors file keeps it."""
        return {"format": "pt", _KEY: self.model_dump_json()}

    @classmethod
    def read(cls, path: Path) -> Self:
        """That of a file; CheckpointError where it is no such file."""
        file = OpenFile(path)
        try:
            text = read_header(file.descriptor, path).metadata.get(_KEY, "")
        finally:
            file.close()
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise CheckpointError(
                f"{path}: its metadata are not those of statistics that this version reads.", hint=MEASURE_AGAIN
            ) from None


def directories(expert: Checkpoint, model: str) -> list[Path]:
    """Where statistics of an expert may lie: beside it, or in the cache, by its fingerprint `model`.

    New ones go to the first that can be written: not into a hub's cache, and not where we may not write.
    """
    kept = cache_directory() / "statistics" / model[:16]
    if expert.directory is None:
        return [kept]
    beside = expert.directory / "statistics"
    at_home = expert.revision is None and os.access(expert.directory, os.W_OK)
    return [beside, kept] if at_home else [kept, beside]


def file_name(kind: str, data: str) -> str:
    """One file per kind and set of examples."""
    return f"{kind}-{data[:16]}{_SUFFIX}"


def save(path: Path, about: About, tensors: Mapping[str, Tensor]) -> None:
    """Write the file; a file that exists is whole. Raises ResourceError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = _Plain(tensors)
    about = about.model_copy(update={"hashes": {name: hash_tensor(tensor) for name, tensor in plain.items()}})
    save_tensors(path, plain, about.metadata())


class _Plain(Mapping[str, Tensor]):
    """The same as they are stored: fp32, on the CPU, one at a time."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name].detach().float().cpu().contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def root_mean_square(tensors: Mapping[str, Tensor]) -> float:
    """Over all elements together."""
    total, count = 0.0, 0
    for tensor in tensors.values():
        total += float(tensor.square().sum(dtype=torch.float64))
        count += tensor.numel()
    return math.sqrt(total / count) if count else 0.0


def only_file(kind: str, expert: str, checkpoint: Checkpoint) -> Path:
    """The statistics that came with an expert, where there are no examples to measure them on; else DataError."""
    beside = [] if checkpoint.directory is None else sorted((checkpoint.directory / "statistics").glob(f"{kind}-*"))
    if len(beside) == 1:
        return beside[0]
    found = f"{len(beside)} files of them lie beside it" if beside else "none lie beside it"
    who = f"expert {expert!r}" if expert else "the base"
    raise DataError(
        f"{who}: no task has examples to measure {kind} on, and {found} ({checkpoint.label}/statistics).",
        hint=f"Give a task {f'with {who} ' if expert else ''}validation or unlabelled examples"
        + (", or leave one file." if beside else "."),
    )


def checked(path: Path, kind: str, source: TensorSource, data: str | None) -> About:
    """The metadata of a file of `kind` for the expert `source`, and for the examples `data` unless that is None.

    Raises CheckpointError where it was measured on another model, DataError where on other examples.
    """
    about = About.read(path)
    if about.kind != kind:
        raise CheckpointError(f"{path}: holds {about.kind}, expected {kind}.", hint=MEASURE_AGAIN)
    model = model_fingerprint(source, about.names)
    if about.model != model:
        raise CheckpointError(
            f"{path}: was measured on another model: fingerprint {about.model[:16]}, but {source.label} has "
            f"{model[:16]}.",
            hint="The expert has changed since, or the file belongs to another: delete it, and it is measured again.",
        )
    if data is not None and about.data != data:
        raise DataError(
            f"{path}: was measured on other examples: fingerprint {about.data[:16]}, but the tasks have {data[:16]}.",
            hint="Delete it, and it is measured again on the tasks' examples.",
        )
    return about


def require_intact(path: Path, about: About, statistics: TensorSource) -> None:
    """CheckpointError unless the tensors of a file have the hashes that they were written with."""
    for name in sorted({*statistics.tensors, *about.hashes}):
        expected = about.hashes.get(name)
        found = hash_stored(statistics, name) if name in statistics.tensors else None
        if found != expected:
            raise CheckpointError(
                f"{path}: tensor {name!r} is not as it was written: BLAKE3 {_short(found)}, expected "
                f"{_short(expected)}.",
                hint=MEASURE_AGAIN,
            )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:16]


def require_shapes(path: Path, kind: str, statistics: TensorSource, source: TensorSource) -> None:
    """CheckpointError unless every tensor in a file of `kind` is fp32, and shaped as that of its tensor in `source`."""
    for name, info in statistics.tensors.items():
        whole = source.tensors[name].shape if name in source.tensors else ()
        # The inputs of a layer come first in some models' weights.
        shapes = dict.fromkeys(own_shape(kind, shape) for shape in (whole, whole[::-1]))
        fits = len(info.shape) == 2 if KINDS[kind].side == "model" else info.shape in shapes
        if info.dtype != torch.float32 or not fits:
            expected = " or ".join(str(list(shape)) for shape in shapes if shape) or "one number"
            raise CheckpointError(
                f"{path}: tensor {name!r} is {info.dtype} {list(info.shape)}, expected torch.float32, "
                f"{'a matrix' if KINDS[kind].side == 'model' else expected}.",
                hint=MEASURE_AGAIN,
            )
