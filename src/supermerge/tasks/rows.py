"""One example of a task, as it was found in a file, and the hash of its content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from blake3 import blake3

Label = str | int | float


@dataclass(frozen=True)
class Row:
    """One example. `place` is where it was found (`news.jsonl:12`), for messages.

    `texts` holds no, one or two texts; `image` is a file or the bytes of one. `label` is as written: a class index or
    a class name, a float for regression, None where unlabelled; `label_name` is the data set's own name of an index.
    """

    place: str
    texts: tuple[str, ...] = ()
    image: Path | bytes | None = None
    prompt: str | None = None
    target: str | None = None
    label: Label | None = None
    label_name: str | None = None

    @cached_property
    def hash(self) -> str:
        """BLAKE3 of what the model is shown, and of the target text; never of the label or the place.

        Two rows are the same example where this is equal, even under different labels. Images count as their file's
        bytes: the same picture saved twice in different formats is not noticed.
        """
        digest = blake3()
        image = self.image.read_bytes() if isinstance(self.image, Path) else self.image
        parts = [text.encode() for text in self.texts]
        optional = [image, *(None if text is None else text.encode() for text in (self.prompt, self.target))]
        digest.update(len(parts).to_bytes(4, "little"))
        for part in (*parts, *optional):
            # The length in front keeps ("ab", "c") and ("a", "bc") apart; -1 stands for "not there".
            digest.update((-1 if part is None else len(part)).to_bytes(8, "little", signed=True))
            digest.update(part or b"")
        return digest.hexdigest()
