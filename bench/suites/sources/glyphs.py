"""The package fonts-aenigma: letters and digits of 465 decorative fonts, rendered with Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from suites.items import Item
from suites.packages import DebianPackage, files_of
from suites.sources.pictures import picture

PACKAGE = DebianPackage(
    name="fonts-aenigma",
    version="0.0.20080511+dfsg-4",
    file="fonts-aenigma_0.0.20080511+dfsg-4_all.deb",
    megabytes=7.4,
    sha256="c7f33a4e5932af82a92c81a5a993a1d117c4309b47532cb0d9c3ad34bc54f5a8",
)
_SIDE = 28
_SIZE = 22


def upper26(archive: Path) -> Iterator[Item]:
    """Which of the 26 capital letters it is."""
    return _glyphs(archive, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def digits10(archive: Path) -> Iterator[Item]:
    """Which digit it is."""
    return _glyphs(archive, "0123456789")


def _glyphs(archive: Path, characters: str) -> Iterator[Item]:
    """Every character of every font, in the middle of 28 × 28 pixels; fonts never come apart."""
    for name, content in files_of(archive, lambda name: name.endswith(".ttf")):
        font = ImageFont.truetype(io.BytesIO(content), _SIZE)
        for character in characters:
            image = _rendered(font, character)
            if image is not None:
                yield Item(image, character, group=Path(name).stem)


def _rendered(font: ImageFont.FreeTypeFont, character: str) -> bytes | None:
    """None where the font draws nothing."""
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (_SIDE, _SIDE), 255)
    place = ((_SIDE - (right - left)) / 2 - left, (_SIDE - (bottom - top)) / 2 - top)
    ImageDraw.Draw(image).text(place, character, font=font, fill=0)
    return None if image.getextrema()[0] > 128 else picture(image)
