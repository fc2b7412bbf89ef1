"""Images: a folder with one sub-folder per class, an image column, and decoding."""

from __future__ import annotations

import io
import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supermerge.errors import DataError
from supermerge.tasks.cells import shown
from supermerge.tasks.rows import Row

if TYPE_CHECKING:
    from PIL.Image import Image

# Formats that are programs: Pillow would have Ghostscript run them.
_RUN = frozenset({"EPS"})
# Modes with 16 or 32 bits a channel, which RGB clips to 8.
_DEEP = ("I", "F")


def read_image_folder(folder: Path, *, labelled: bool) -> Iterator[Row]:
    """Yield the images below `folder` in the order of their paths; the label is the name of the sub-folder.

    Hidden files are skipped, and so are files beside the class folders; anything else below them must be an image.
    Without labels, images may also lie directly in `folder`. Raises DataError with the file.
    """
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if labelled and not classes:
        raise DataError(
            f"{folder}: expected one sub-folder per class, found none",
            hint="Put the images into folders named after their classes, e.g. cats/1.png and dogs/2.png.",
        )
    for group in classes or [folder]:
        for path in sorted(entry for entry in group.rglob("*") if entry.is_file()):
            if any(part.startswith(".") for part in path.relative_to(folder).parts):
                continue
            require_image(path, place=str(path))
            yield Row(place=str(path), image=path, label=group.name if labelled else None)


def image_of(value: Any, *, column: str, place: str, base_dir: Path) -> Path | bytes:
    """The image in a table's cell: a path relative to `base_dir`, the bytes of a file, or {bytes, path}.

    Raises DataError where the cell holds text or anything else that is not an image.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        require_image(value, place=f"{place}: column {column!r}")
        return value
    if not isinstance(value, str):
        raise DataError(f"{place}: column {column!r}: expected an image, found {shown(value)}")
    # os.path.isfile, for whatever a text holds (a NUL, 10,000 characters) it answers instead of raising.
    if not os.path.isfile(path := base_dir / value):
        raise DataError(
            f"{place}: column {column!r}: expected an image file, found {shown(value)}",
            hint=f"An image column holds paths relative to {base_dir}, or the bytes of image files.",
        )
    require_image(path, place=f"{place}: column {column!r}: {path}")
    return path


def require_image(image: Path | bytes, *, place: str) -> None:
    """Raise DataError unless the header of `image` is that of one with 8 bits a channel; the pixels are not read."""
    try:
        with _opened(image) as found:
            mode = found.mode
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(
            f"{place}: expected an image, found what cannot be read as one",
            hint="Any format that Pillow itself decodes will do: PNG, JPEG, WebP, GIF, BMP, TIFF, …",
        ) from error
    if mode.startswith(_DEEP):
        raise DataError(
            f"{place}: expected an image with 8 bits per channel, found Pillow's mode {mode!r}",
            hint="Convert it as the expert's training did: clipped to 8 bits it would be white or black.",
        )


def open_image(row: Row) -> Image:
    """Decode the image of `row` as RGB, turned as its camera says. Raises DataError where it is damaged."""
    import PIL.ImageOps

    if row.image is None:
        raise DataError(f"{row.place}: expected an image, found none")
    try:
        with _opened(row.image) as image:
            return PIL.ImageOps.exif_transpose(image).convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{row.place}: the image is damaged ({error})") from error


def _opened(image: Path | bytes) -> Image:
    """What is at fault with an image Pillow says with whatever error its decoder ran into."""
    import PIL.Image

    PIL.Image.init()
    formats = [name for name in PIL.Image.OPEN if name not in _RUN]
    return PIL.Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=formats)
