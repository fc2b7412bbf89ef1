"""The vectors of a basis as checkpoints: those that are in no expert's file are made once, and kept while learning."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from blake3 import blake3

from supermerge.assemble import several_into
from supermerge.assemble.pieces import arithmetic
from supermerge.checkpoint import Checkpoint, Match, ShardWriter, TensorInfo, TensorSource
from supermerge.distributed import current
from supermerge.learn.basis import Basis

_SHARD = 5_000_000_000
_PREFIX = "derived-"


@contextmanager
def sources(
    basis: Basis, match: Match, seed: int, directory: Path | None, key: str
) -> Iterator[Mapping[str, TensorSource]]:
    """θp + v of every vector of `basis`, by name, under the base's file names.

    What has to be made lies in `directory`, where a resumed run with the same `key` finds it again; without one, in a
    temporary directory. It takes one model in fp32 for every vector that is `derived`.
    """
    if not basis.derived:
        yield match.experts
        return
    with ExitStack() as stack:
        if directory is None:
            place = Path(stack.enter_context(TemporaryDirectory(prefix=_PREFIX)))
            _make(basis, match, seed, place)
        else:
            with current().after_first():
                place = _kept(basis, match, seed, directory, key)
        made = {
            name: stack.enter_context(Checkpoint.open(place / str(i), label=name))
            for i, name in enumerate(basis.derived)
        }
        yield {name: made[name] if name in made else match.experts[name] for name in basis.names}


def _kept(basis: Basis, match: Match, seed: int, directory: Path, key: str) -> Path:
    """The directory that has them, and is whole if it is there; those of other runs are deleted."""
    place = directory / f"{_PREFIX}{blake3(key.encode()).hexdigest(16)}"
    for unfinished in directory.glob(f"{_PREFIX}*.part"):
        shutil.rmtree(unfinished)
    for other in directory.glob(f"{_PREFIX}*"):
        if other != place:
            shutil.rmtree(other.rename(f"{other}.part"))  # whole or not there, whenever the run is killed
    if not place.is_dir():
        unfinished = place.with_name(f"{place.name}.part")
        unfinished.mkdir(parents=True)
        _make(basis, match, seed, unfinished)
        unfinished.rename(place)
    return place


def _make(basis: Basis, match: Match, seed: int, place: Path) -> None:
    stored = (match.base.tensors[name] for name in match.merged)
    infos = [TensorInfo(info.name, arithmetic(info.dtype), info.shape) for info in stored]
    with ExitStack() as stack:
        writers: list[ShardWriter] = []
        for i in range(len(basis.derived)):
            (place / str(i)).mkdir()
            writers.append(stack.enter_context(ShardWriter(place / str(i), infos, shard_size=_SHARD)))
        several_into(writers, basis.bound(basis.members[-1].method, basis.derive), match, seed=seed)
        for writer in writers:
            writer.close()
