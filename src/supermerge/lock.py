"""The lock file of an output directory: what exactly was read and written, so that both can be checked later."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from supermerge.errors import CheckpointError

LOCK_NAME = "recipe.lock.json"
Blake3 = str


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LockedSource(_Part):
    """A checkpoint that was read: as the recipe names it, where it was found, and the hash of every tensor read.

    Of an adapter on the base these are its own tensors, and `settings` is the hash of its adapter_config.json.
    """

    ref: str
    path: str | None = None
    revision: str | None = None
    under: LockedSource | None = None
    """For an adapter on a model that is not the base: that model."""
    settings: Blake3 | None = None
    tensors: dict[str, Blake3] = Field(default_factory=dict)


class LockedOutput(_Part):
    """What was written: the hash of every file (by its path in the directory) and of every tensor of the model.

    `errors` are the relative errors of an adapter's modules that were recompressed.
    """

    files: dict[str, Blake3] = Field(default_factory=dict)
    tensors: dict[str, Blake3] = Field(default_factory=dict)
    errors: dict[str, float] = Field(default_factory=dict)


class Change(_Part):
    """An expert that was added to the merge, or removed from it.

    `how`: all experts were merged anew, or the merge so far was one of the models. `replaced` is the hash of the lock
    file that was there before, `coefficients` of the ones that learning started from.
    """

    action: Literal["added", "removed"]
    expert: str
    at: str
    how: Literal["all experts", "merge so far"]
    replaced: Blake3
    coefficients: Blake3 | None = None


class Lock(_Part):
    """The content of `recipe.lock.json`. `recipe` is the hash of the bytes of `recipe.yaml` beside it.

    `tree` says in which groups coefficients were learned, as `((a, b), (c, d))`, where it was not one of all experts.
    `history` are the changes since the first run, the latest last.
    """

    format: Literal[1] = 1
    created: str
    versions: dict[str, str]
    seed: int
    threads: int
    recipe: Blake3
    base: LockedSource
    experts: dict[str, LockedSource]
    output: LockedOutput
    tree: str | None = None
    history: tuple[Change, ...] = ()

    def write(self, directory: Path) -> None:
        """Write it into `directory`."""
        (directory / LOCK_NAME).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Lock:
        """The lock of `directory`; CheckpointError where there is none, or it is not one."""
        path = directory / LOCK_NAME
        try:
            text = path.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{path}: {error.strerror or 'cannot be read'}", hint="Name a directory that `supermerge run` wrote."
            ) from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CheckpointError(
                f"{path}: not a lock file of format 1: {place + ': ' if place else ''}{first['msg']}",
                hint="It was changed by hand or written by a newer version of supermerge.",
            ) from error


def hash_file(path: Path) -> Blake3:
    """BLAKE3 of the bytes of a file, read in pieces."""
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()
