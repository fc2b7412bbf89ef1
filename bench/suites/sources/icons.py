"""The packages oxygen-icon-theme and gnome-icon-theme: desktop icons of 48 × 48 pixels, by context."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from suites.items import Item
from suites.packages import DebianPackage, files_of
from suites.sources.pictures import decoded

OXYGEN = DebianPackage(
    name="oxygen-icon-theme",
    version="5:5.103.0-1",
    file="oxygen-icon-theme_5%3a5.103.0-1_all.deb",
    megabytes=31.8,
    sha256="3e49023e148906e41457a98a19a09858ddd761ef4f212fa356232924b3cebcce",
)
GNOME = DebianPackage(
    name="gnome-icon-theme",
    version="3.12.0-5",
    file="gnome-icon-theme_3.12.0-5_all.deb",
    megabytes=9.9,
    sha256="243520edcff2c309065b7e12ae08f666580e6098ecafa0c0f7d28c75aedcfdc3",
)
_ICON = re.compile(r".*/48x48/(actions|apps|categories|devices|mimetypes|places|status)/(.+)\.png")


def contexts(oxygen: Path, gnome: Path) -> Iterator[Item]:
    """Which of 7 contexts an icon is for. Both themes' icons of a name stay together; links are left out."""
    for archive in (oxygen, gnome):
        for name, content in files_of(archive, lambda name: _ICON.fullmatch(name) is not None):
            found = _ICON.fullmatch(name)
            assert found is not None
            yield Item(decoded(content), found[1], group=found[2])
