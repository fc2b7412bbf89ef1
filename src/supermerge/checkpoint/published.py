"""Files of the hub's cache against the hub's own hashes: a blob of weights is named by the SHA-256 of its bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from supermerge.errors import CheckpointError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def require_as_published(files: Iterable[Path]) -> int:
    """How many of `files` are blobs of the hub's cache; CheckpointError for one whose bytes are not those published.

    Files that lie elsewhere, and small ones that the hub names in another way, say nothing and are not counted.
    """
    checked = 0
    for file in files:
        blob = file.resolve()
        if blob.parent.name != "blobs" or not _SHA256.fullmatch(blob.name):
            continue
        digest = sha256()
        with blob.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != blob.name:
            raise CheckpointError(
                f"{file}: its SHA-256 is {digest.hexdigest()}, published is {blob.name}",
                hint=f"The cached copy is damaged. Delete {blob} and run again to download it anew.",
            )
        checked += 1
    return checked
