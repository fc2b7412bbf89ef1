"""Checkpoint: a base or an expert, wherever its tensors come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from torch import Tensor, nn

from supermerge.checkpoint.files import FileIdentity, FileStore, identify, open_safetensors
from supermerge.checkpoint.hub import HubId, snapshot
from supermerge.checkpoint.locate import (
    PICKLES,
    Weights,
    find_weights,
    inside,
    read_index,
    read_json,
    refuse_pickle,
    side_files,
)
from supermerge.checkpoint.memory import MemoryStore
from supermerge.checkpoint.pickled import open_pickles
from supermerge.checkpoint.source import Buffer, TensorInfo, TensorSource
from supermerge.errors import CheckpointError, UsageError


class Checkpoint:
    """A TensorSource together with where it came from: its files, config and revision.

    Opening reads headers only. Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        store: TensorSource,
        *,
        identity: object,
        directory: Path | None = None,
        revision: str | None = None,
        fingerprint: tuple[FileIdentity, ...] = (),
        borrowed: bool = False,
        under: Checkpoint | None = None,
        config: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.label = store.label
        self.directory = directory
        self.revision = revision
        self.identity = identity
        """Equal for two checkpoints exactly if they read the same files, or the same memory."""
        self.store = store
        """What gives its tensors."""
        self._fingerprint = fingerprint
        self._borrowed = borrowed
        self.under = under
        """The model that this one is an adapter on, if it is one: it gives the side files that lack."""
        self._config = config or {}
        self.notes = notes
        """What the user should know of how it was opened."""

    @staticmethod
    def open(
        ref: str | os.PathLike[str] | Mapping[str, Tensor] | nn.Module | Checkpoint,
        *,
        label: str | None = None,
        allow_pickle: bool = False,
        offline: bool | None = None,
    ) -> Checkpoint:
        """Open whatever `ref` names.

        A directory, a safetensors file, an index file, a pickle (.bin, .pt, .pth; only with `allow_pickle`, and then
        only its tensors), a hub id `owner/name[@revision]`, a mapping of names to tensors, a module, or a checkpoint,
        whose files stay open when the one given back is closed. `label` names it in messages. `offline=None` does as
        HF_HUB_OFFLINE says.

        Raises CheckpointError when it is missing or corrupt, NetworkError when a hub is needed and cannot be reached.
        """
        if isinstance(ref, Checkpoint):
            return ref._lent()
        if isinstance(ref, nn.Module):
            return _in_memory(label or type(ref).__name__, ref.state_dict())
        if isinstance(ref, Mapping):
            return _in_memory(label or "tensors in memory", ref)
        if not isinstance(ref, (str, os.PathLike)):
            raise UsageError(f"a checkpoint is a path, hub id, mapping of tensors or module, not {type(ref).__name__}")
        place = place_of(ref, allow_pickle=allow_pickle, offline=offline)
        return _on_disk(label or os.fspath(ref), place.path, allow_pickle=allow_pickle, revision=place.revision)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in the order that is quickest to read."""
        return self.store.tensors

    @property
    def bytes_read(self) -> int:
        """Bytes of tensors read so far."""
        return self.store.bytes_read

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype: [*shape] or [rows, *shape[1:]]."""
        return self.store.read(name, rows, buffer=buffer)

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype: [stop - start]."""
        return self.store.read_flat(name, start, stop, buffer=buffer)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` says; an adapter's is mostly that of its model; empty when there is none."""
        path = self.directory / "config.json" if self.directory else None
        if path is None or not path.is_file():
            return MappingProxyType(dict(self._config))
        return MappingProxyType(read_json(inside(path.parent, path)))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes of transformers that `config.json` names."""
        named = self.config.get("architectures")
        return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()

    def side_files(self) -> list[Path]:
        """Config, tokenizer, processor and chat template files that an output made from it needs."""
        own = side_files(self.directory) if self.directory else []
        names = {file.name for file in own}
        return own + [file for file in (self.under.side_files() if self.under else []) if file.name not in names]

    def fingerprint(self) -> tuple[FileIdentity, ...]:
        """The weights' files as they were when opened; empty when in memory."""
        return self._fingerprint

    def require_unchanged(self) -> None:
        """Raise CheckpointError, naming the file, if any file of the weights is no longer as it was when opened."""
        for opened in self._fingerprint:
            if identify(opened.path) != opened:
                raise CheckpointError(
                    f"{opened.path}: changed while it was being read",
                    hint="Leave checkpoints alone while they are being merged, and run again.",
                )

    def close(self) -> None:
        """Let go of its files, unless another checkpoint opened them; harmless when done twice."""
        if not self._borrowed and isinstance(self.store, FileStore | MemoryStore):
            self.store.close()

    def through(self, view: TensorSource, *, identity: object = None) -> Checkpoint:
        """This checkpoint with the tensors that `view` gives; its files stay open when the one given back is closed."""
        return Checkpoint(
            view,
            identity=self.identity if identity is None else identity,
            directory=self.directory,
            revision=self.revision,
            fingerprint=self._fingerprint,
            borrowed=True,
            under=self.under,
            config=self._config,
            notes=self.notes,
        )

    def _lent(self) -> Checkpoint:
        return self.through(self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkpoint lies; `revision` is the commit of one that comes from the hub."""

    path: Path
    revision: str | None


def place_of(ref: str | os.PathLike[str], *, allow_pickle: bool = False, offline: bool | None = None) -> Place:
    """The file or directory that a path or hub id names; downloaded, where it must be. Errors: `Checkpoint.open`'s."""
    text = os.fspath(ref)
    path = Path(os.path.expanduser(text))
    if path.exists():
        return Place(path, None)
    hub_id = HubId.parse(text) if isinstance(ref, str) else None
    if hub_id is None:
        raise CheckpointError(
            f"{text}: there is no such file or directory, and it cannot be a hub id",
            hint="Check the path (relative ones start at the current directory); a hub id is owner/name[@revision]",
        )
    directory = snapshot(hub_id, allow_pickle=allow_pickle, offline=offline)
    return Place(directory, directory.name)


def _in_memory(label: str, tensors: Mapping[str, Tensor]) -> Checkpoint:
    store = MemoryStore(label, tensors)
    return _nonempty(Checkpoint(store, identity=frozenset(tensor.data_ptr() for tensor in tensors.values())))


def _on_disk(label: str, path: Path, *, allow_pickle: bool, revision: str | None = None) -> Checkpoint:
    directory = path if path.is_dir() else path.parent
    weights = find_weights(path, allow_pickle=allow_pickle) if path.is_dir() else _named_file(path)
    if weights.files[0].suffix in PICKLES:
        if not allow_pickle:
            refuse_pickle(weights.files[0])
        store = open_pickles(label, weights.files)
    else:
        store = open_safetensors(label, weights.files, weights.weight_map)
    on_disk = isinstance(store, FileStore)
    fingerprint = store.identities if on_disk else tuple(identify(file) for file in weights.files)
    files = frozenset((status.st_dev, status.st_ino) for status in (file.stat() for file in weights.files))
    return _nonempty(Checkpoint(store, identity=files, directory=directory, revision=revision, fingerprint=fingerprint))


def _named_file(path: Path) -> Weights:
    if path.name.endswith(".index.json"):
        return read_index(path)
    if path.suffix == ".safetensors" or path.suffix in PICKLES:
        return Weights((path,))
    raise CheckpointError(
        f"{path}: is not a file of weights",
        hint="Name a directory, a .safetensors file, its .index.json or, with allow_pickle, a .bin file.",
    )


def _nonempty(checkpoint: Checkpoint) -> Checkpoint:
    if not checkpoint.tensors:
        checkpoint.close()
        raise CheckpointError(f"{checkpoint.label}: holds no tensors", hint="Check that it is the checkpoint you mean.")
    return checkpoint
