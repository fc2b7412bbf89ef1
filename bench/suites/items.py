"""What every source of a suite gives: labelled texts or images, and which of them belong together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One text, or one image as the bytes of a PNG. Items of one `group` never come apart into different parts.

    `test` says on which side of the source's own split it is, where there is one.
    """

    content: str | bytes
    label: str
    group: str = ""
    test: bool | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content.encode() if isinstance(self.content, str) else self.content).hexdigest()
