"""The package emoji-datasource-google: Noto emoji of 64 × 64 pixels, with their groups and skin tones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from suites.items import Item
from suites.packages import NpmPackage, files_of
from suites.sources.pictures import decoded

PACKAGE = NpmPackage(
    name="emoji-datasource-google",
    version="16.0.0",
    file="emoji-datasource-google-16.0.0.tgz",
    megabytes=74.3,
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
_FOLDER = "package/img/google/64/"
_TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}
# The five swatches of skin, which are no group of pictures.
_NOT_PICTURES = "Component"


def groups(archive: Path) -> Iterator[Item]:
    """Which of 9 groups an emoji belongs to; skin tones left out."""
    table, images = _read(archive)
    for emoji in table:
        if emoji["image"] in images and emoji["category"] != _NOT_PICTURES:
            yield Item(decoded(images[emoji["image"]]), emoji["category"], group=emoji["unified"])


def skin_tones(archive: Path) -> Iterator[Item]:
    """Which of five skin tones a person or hand has; an emoji's tones never come apart."""
    table, images = _read(archive)
    for emoji in table:
        for tones, variation in emoji.get("skin_variations", {}).items():
            if tones in _TONES and variation["image"] in images:
                yield Item(decoded(images[variation["image"]]), _TONES[tones], group=emoji["unified"])


def _read(archive: Path) -> tuple[list[dict], dict[str, bytes]]:
    found = dict(files_of(archive, lambda name: name == "package/emoji.json" or name.startswith(_FOLDER)))
    table = json.loads(found.pop("package/emoji.json"))
    return table, {name.removeprefix(_FOLDER): content for name, content in found.items()}
