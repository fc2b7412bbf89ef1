"""An output directory that exists only when it is whole."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from supermerge.checkpoint.directory_lock import DirectoryLock
from supermerge.checkpoint.output_file import disk_error
from supermerge.errors import ResourceError
from supermerge.events import emit

# Any of these marks a directory that `force` may replace: what a run writes, or a model.
OURS = ("config.json", "recipe.yaml", "metrics.json", "report.html", "*.safetensors")


class OutputDirectory:
    """Work in `staging`, a hidden sibling of `path`; `commit` renames it into place.

    `with OutputDirectory(path) as out:` write under `out.staging`, then `out.commit()`. Leaving without `commit`
    deletes the staging directory. With `force` an older directory is moved aside, the new one renamed in and the old
    one deleted. A process that dies at any moment leaves the old directory or the new one, or, between the two renames,
    both under hidden names; the next run into the same path finishes what was begun. `inputs` are never replaced.

    Raises ResourceError, before any work, if `path` exists and `force` is not given, if it is no directory of models or
    results, if another run is writing it, or if the disk refuses.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
        self.path = Path(os.path.realpath(_nameable(path)))
        if self.path == self.path.parent:
            raise ResourceError(f"{self.path}: cannot be an output directory", hint="Choose a directory below it.")
        self.force = force
        self.committed = False
        self.staging = self.path.with_name(f".{self.path.name}.supermerge-new")
        self._old = self.path.with_name(f".{self.path.name}.supermerge-old")
        self._lock = DirectoryLock(self.path.with_name(f".{self.path.name}.supermerge-lock"), self.path)
        self._inputs = [Path(os.path.realpath(place)) for place in inputs]
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._make_parents()
            self._lock.acquire()
            self._recover()
            self._check()
            os.mkdir(self.staging)
        except OSError as error:
            self._leave()
            raise disk_error(self.path, error) from error
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.committed:
                self._recover()
        finally:
            self._leave()

    def commit(self) -> None:
        """Put the directory in its place: give it sane modes, wait for the disk, rename. Raises ResourceError."""
        try:
            _settle(self.staging)
            self._check()
            if self.path.exists():
                os.rename(self.path, self._old)
            self._move_in()
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.committed = True
        shutil.rmtree(self._old, ignore_errors=True)
        if self._old.exists():
            emit("warning", message=f"{self._old}: the replaced directory could not be deleted")

    def set_aside(self) -> Path:
        """Keep what was made beside its place, as `NAME.refused`, instead of an older one. Returns the path."""
        place = self.path.with_name(f"{self.path.name}.refused")
        try:
            _settle(self.staging)
            if place.exists():
                _require_ours(place)
                shutil.rmtree(place)
            os.rename(self.staging, place)
            _sync(place.parent)
        except OSError as error:
            raise disk_error(place, error) from error
        return place

    def _move_in(self) -> None:
        try:
            os.rename(self.staging, self.path)
        except OSError:
            if self._old.exists():
                os.rename(self._old, self.path)
            raise
        _sync(self.path.parent)

    def _recover(self) -> None:
        """Finish what an earlier run, or this one, left behind."""
        if self._old.exists():  # it is moved aside only once the new one is whole and on the disk
            if not self.path.exists():
                os.rename(self.staging if self.staging.exists() else self._old, self.path)
                _sync(self.path.parent)
            shutil.rmtree(self._old, ignore_errors=True)
        if self.staging.exists():
            shutil.rmtree(self.staging)

    def _check(self) -> None:
        if self.path.is_symlink():  # although links were followed
            raise ResourceError(
                f"{self.path}: is a link that leads nowhere", hint="Remove it, or choose another output."
            )
        if not self.path.exists():
            return
        if not self.force:
            raise ResourceError(
                f"{self.path}: exists already", hint="Choose another output, or replace this one with --force."
            )
        _require_ours(self.path)
        used = next((place for place in self._inputs if place == self.path or self.path in place.parents), None)
        if used is not None:
            raise ResourceError(f"{self.path}: replacing it would delete {used}, which this run reads")

    def _make_parents(self) -> None:
        missing = [place for place in self.path.parents if not place.exists()]
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            self._made.append(place)

    def _leave(self) -> None:
        self._lock.release()
        if not self.committed:
            for place in reversed(self._made):
                if place.is_dir() and not any(place.iterdir()):
                    place.rmdir()


def _nameable(path: str | os.PathLike[str]) -> str:
    """`path`, if pages and lock files can name it; else ResourceError, before hours of work rather than after."""
    name = os.fspath(path)
    if "\0" in name:
        raise ResourceError(f"{name!r}: no path has the byte 0 in it", hint="Choose another output.")
    try:
        os.path.abspath(name).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ResourceError(
            f"{os.path.abspath(name)!r}: is not UTF-8, so that no page and no lock file can name it",
            hint="Choose an output whose path is UTF-8.",
        ) from error
    return name


def _require_ours(place: Path) -> None:
    """ResourceError unless `place` is a directory that a run may replace: models or results, or nothing at all."""
    if not place.is_dir():
        raise ResourceError(f"{place}: is a file, not a directory", hint="Choose another output.")
    if any(place.iterdir()) and not any(found for mark in OURS for found in place.glob(mark)):
        raise ResourceError(
            f"{place}: holds neither a model nor results, so it is not deleted",
            hint="Choose another output, or empty the directory yourself.",
        )


def _settle(root: Path) -> None:
    """Give every file the mode that the umask asks for, whoever wrote it, and wait until all is on the disk."""
    mode = stat.S_IMODE(root.stat().st_mode) & 0o777  # the directory was made with the umask applied
    if not any(root.iterdir()):
        raise ResourceError(f"{root}: nothing was written into it")
    for place in (*root.rglob("*"), root):
        kind = place.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise ResourceError(f"{place}: is neither a file nor a directory, and an output holds nothing else")
        place.chmod(mode if stat.S_ISDIR(kind) else mode & 0o666)
        _sync(place)


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
