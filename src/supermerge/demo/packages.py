"""Packages that carry models or data: fetched with their usual client, checked, and read where they lie."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from supermerge.errors import DataError, NetworkError, ResourceError
from supermerge.events import emit, phase


@dataclass(frozen=True, slots=True)
class Package:
    """One wheel: its name and version on the package index, its file name, size in MB and SHA-256.

    Packages of other kinds override `client`, the program that downloads them, and `request`.
    """

    client: ClassVar[str] = "pip"
    name: str
    version: str
    file: str
    megabytes: float
    sha256: str

    @property
    def pinned(self) -> str:
        """Name and version, as the client writes them."""
        return f"{self.name}=={self.version}"

    def request(self) -> list[str]:
        """The command that downloads the package into the working directory."""
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
        return [sys.executable, "-m", "pip", "download", *options, "--dest", ".", self.pinned]


def fetch(packages: Sequence[Package], directory: Path) -> dict[str, Path]:
    """The files of `packages` in `directory`, by package name; those that are missing or damaged are downloaded.

    Raises ResourceError where the client is not installed, NetworkError where it cannot get the package, and DataError
    where what it got is not the expected file.
    """
    missing = [package for package in packages if not _is_whole(directory / package.file, package)]
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        with phase("download"):
            for done, package in enumerate(missing):
                emit("note", message=f"downloading {package.name} {package.version} ({package.megabytes:.0f} MB)")
                _download(package, directory)
                emit("progress", phase="download", done=done + 1, total=len(missing), unit="packages")
    return {package.name: directory / package.file for package in packages}


def _download(package: Package, directory: Path) -> None:
    """Fetch into a directory of its own and move the checked file into place: a file that exists is whole."""
    with tempfile.TemporaryDirectory(prefix=".", dir=directory) as staging:
        try:
            done = subprocess.run(
                package.request(),
                cwd=staging,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise _lacks_client(package, directory) from None
        if "No module named pip" in done.stderr:
            raise _lacks_client(package, directory)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            last = next((line for line in reversed(lines) if line.startswith(("ERROR", "E:", "npm error"))), lines[-1])
            raise NetworkError(
                f"{package.client} could not download {package.pinned}: {last.removeprefix('ERROR:').strip()}",
                hint=f"Check the network and {package.client}'s settings, or put {package.file} into {directory}.",
            )
        file = Path(staging) / package.file
        if not _is_whole(file, package):
            found = _sha256(file) if file.is_file() else ", ".join(sorted(p.name for p in Path(staging).iterdir()))
            raise DataError(
                f"{package.pinned}: expected {package.file} with SHA-256 {package.sha256}, "
                f"{package.client} gave {found}",
                hint="The index serves another file under this version; use one that serves the original.",
            )
        file.replace(directory / package.file)


def _lacks_client(package: Package, directory: Path) -> ResourceError:
    if package.client == "pip":
        return ResourceError(
            f"{sys.executable} has no pip, which {package.pinned} is downloaded with",
            hint="Install it: `python -m ensurepip`, or use an environment that has pip.",
        )
    return ResourceError(
        f"{package.client} is not installed, and {package.pinned} is downloaded with it",
        hint=f"Install it, or put {package.file} into {directory}.",
    )


def _is_whole(file: Path, package: Package) -> bool:
    return file.is_file() and _sha256(file) == package.sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """The wheel as a zip file; DataError if it is not one or lacks a member that the block asks for."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{wheel}: {error}", hint="Delete the file; the next run downloads it again.") from error
