"""Every image of the vision suite in one form: 56 × 56 pixels, RGB on white, as a PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SIDE = 56


def picture(image: Image.Image) -> bytes:
    """The PNG of an image in any mode and size; what is transparent becomes white."""
    if image.mode != "RGB":
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    stream = io.BytesIO()
    image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def decoded(content: bytes) -> bytes:
    """The same for the bytes of an image file."""
    with Image.open(io.BytesIO(content)) as image:
        return picture(image)


def grey(pixels: np.ndarray) -> bytes:
    """The same for [rows, columns] of uint8."""
    return picture(Image.fromarray(pixels))
