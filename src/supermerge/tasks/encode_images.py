"""Images with one label each, through the model's own image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from supermerge.errors import CheckpointError, DataError
from supermerge.resources import wants_memory
from supermerge.tasks.encode import Batch, Encoder, Example, Labels, stacked_labels
from supermerge.tasks.images import open_image
from supermerge.tasks.models import MISTAKEN
from supermerge.tasks.rows import Row

PIXELS = "pixel_values"


class PixelCache:
    """Processed images by content, up to `limit` bytes in all; what no longer fits is processed each time."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pixels: dict[str, Tensor] = {}

    def get(self, key: str) -> Tensor | None:
        """The image kept under `key`."""
        return self._pixels.get(key)

    def put(self, key: str, pixels: Tensor) -> None:
        """Keep an image if there is room."""
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._pixels[key] = pixels


class ImageEncoder(Encoder):
    """Images are decoded and processed when a batch needs them; `cache` keeps them for the next time."""

    def __init__(self, processor: Any, labels: Labels, cache: PixelCache) -> None:
        self._processor = processor
        self._labels = labels
        self._cache = cache

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Only labels are looked at: pixels would not fit into memory."""
        return [Example(row, {}, label) for row, label in zip(rows, self._labels.of(rows), strict=True)]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`pixel_values` [n, channels, height, width], in the processor's size."""
        pixels = [self._pixels(example.row) for example in examples]
        sizes = {tuple(image.shape) for image in pixels}
        if len(sizes) > 1:
            raise DataError(
                f"{examples[0].row.place}: the image processor gives images of several sizes, {sorted(sizes)[:3]}.",
                hint="Resize the images, or give the base an image processor with a fixed size.",
            )
        return {PIXELS: torch.stack(pixels)} | stacked_labels(examples)

    def _pixels(self, row: Row) -> Tensor:
        known = self._cache.get(row.hash)
        if known is None:
            known = self._processed(row)
            self._cache.put(row.hash, known)
        return known

    def _processed(self, row: Row) -> Tensor:
        image = open_image(row)
        try:
            pixels: Tensor = self._processor(image, return_tensors="pt")[PIXELS][0]
            said = None if torch.isfinite(pixels).all() else "it gives values that are NaN or infinite"
        except MISTAKEN as error:
            if wants_memory(error):
                raise
            pixels, said = torch.empty(0), str(error)
        if said is not None:
            raise CheckpointError(
                f"{row.place}: the {type(self._processor).__name__} of the model cannot process this image: {said}.",
                hint="Its settings are in preprocessor_config.json: copy that from the model, or correct it.",
            )
        return pixels
