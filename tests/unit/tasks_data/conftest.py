from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from supermerge.tasks import TaskSpec

MakeSpec = Callable[..., TaskSpec]


@pytest.fixture
def spec() -> MakeSpec:
    def make(kind: str = "text-classification", **fields: Any) -> TaskSpec:
        entry = {"entry_point": "package.module:task", "metric": "accuracy"} if kind == "custom" else {}
        return TaskSpec.model_validate({"type": kind, "expert": "news", "test": "x", **entry, **fields})

    return make


@pytest.fixture
def png() -> Callable[[int], bytes]:
    def make(shade: int) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (3, 2), (shade, shade, shade)).save(file, format="PNG")
        return file.getvalue()

    return make


@pytest.fixture
def image_folder(tmp_path: Path, png: Callable[[int], bytes]) -> Path:
    folder = tmp_path / "pets"
    for shade, name in enumerate(["cat/b.png", "cat/a.png", "cat/more/c.png", "dog/a.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(shade))
    (folder / "README.txt").write_text("beside the classes")
    (folder / "cat" / ".thumbs").write_text("hidden")
    (folder / ".cache").mkdir()
    return folder
