"""What is fuzzed: every reader of bytes that come from elsewhere, as a function of those bytes.

A target returns for good bytes and for bad ones that the reader refuses as it should, with a SupermergeError. Anything
else that comes out of it is a bug. Files are written where memory is the disk, if there is such a place.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from supermerge.checkpoint import Checkpoint, open_expert
from supermerge.checkpoint.adapters import CONFIG_NAME, WEIGHTS_NAME
from supermerge.checkpoint.header import Refused, parse_header
from supermerge.checkpoint.locate import parse_weight_map
from supermerge.errors import DataError, RecipeError, SupermergeError, UsageError
from supermerge.learn import Coefficients
from supermerge.lock import LOCK_NAME, Lock
from supermerge.mergekit.reader import is_mergekit, named_models, read_mergekit
from supermerge.recipe import Recipe
from supermerge.recipe_overrides import apply_overrides
from supermerge.tasks.data import read_rows
from supermerge.tasks.images import open_image, require_image
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.yaml_file import read_documents, read_yaml, write_yaml

MEMORY = Path("/dev/shm")
PLACE = Path(tempfile.mkdtemp(prefix="supermerge-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)
CLASSES = TaskSpec.model_validate({"type": "text-classification", "expert": "a", "test": "t"})
NUMBERS = TaskSpec.model_validate({"type": "regression", "expert": "a", "test": "t"})


def header(raw: bytes) -> None:
    """The JSON of a safetensors file whose first two bytes say how many bytes of tensors follow it."""
    text = raw[2:]
    with suppress(Refused):
        found = parse_header(text, 8 + len(text) + int.from_bytes(raw[:2], "little"))
        ends = [found.offsets[name] + info.nbytes for name, info in found.tensors.items()]
        assert max(ends, default=8 + len(text)) == found.nbytes


def safetensors(raw: bytes) -> None:
    """A whole file, opened and read like a checkpoint."""
    path = PLACE / "model.safetensors"
    path.write_bytes(raw)
    with suppress(SupermergeError), Checkpoint.open(path) as checkpoint:
        for name, info in checkpoint.tensors.items():
            assert tuple(checkpoint.read(name).shape) == info.shape


def index(raw: bytes) -> None:
    """An index file; no file that it names may lie elsewhere."""
    with suppress(SupermergeError):
        for file in parse_weight_map(raw, Path("model.safetensors.index.json")).values():
            assert os.path.normpath(PLACE / file) == str(PLACE / file)


def yaml(raw: bytes) -> None:
    """YAML, and what was read written and read again."""
    with suppress(RecipeError, UnicodeDecodeError):
        value = read_yaml(raw.decode(), "recipe.yaml").value
        again = read_yaml(write_yaml(value), "again").value
        assert repr(again) == repr(value)


def recipe(raw: bytes) -> None:
    """A recipe; a good one says the same after it was written and read."""
    with suppress(RecipeError, UnicodeDecodeError):
        document = read_yaml(raw.decode(), "recipe.yaml").value
        if isinstance(document, dict):
            found = Recipe.of(document)
            assert Recipe.of(read_yaml(found.to_yaml(), "again").value).digest == found.digest


def mergekit(raw: bytes) -> None:
    """mergekit's YAML, which may hold several documents; a good one says the same after it was written and read."""
    with suppress(RecipeError, UnicodeDecodeError):
        documents = read_documents(raw.decode(), "mergekit.yaml")
        if is_mergekit(documents):
            found = read_mergekit(documents, "mergekit.yaml", PLACE, ())
            again = read_documents(found.to_yaml(None), "again")
            assert read_mergekit(again, "again", PLACE, ()).documents == found.documents
            names = named_models(found.inputs)
            assert len({name.lower() for name in names}) == len(found.inputs)
            assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) for name in names)
            assert read_documents(found.to_yaml(PLACE), "elsewhere")


def override(raw: bytes) -> None:
    """--set, one per line, on a small recipe."""
    small = {"base": "b", "experts": {"a": {"model": "m"}}, "rules": [{"match": "*", "method": "linear"}]}
    with suppress(RecipeError, UsageError, UnicodeDecodeError):
        apply_overrides(small, raw.decode().split("\n"))


def jsonl(raw: bytes) -> None:
    """JSON lines of a classification."""
    _rows(raw, "rows.jsonl", CLASSES)


def csv(raw: bytes) -> None:
    """A CSV file of a regression."""
    _rows(raw, "rows.csv", NUMBERS)


def image(raw: bytes) -> None:
    """The bytes of an image file, looked at and decoded."""
    with suppress(DataError):
        require_image(raw, place="image")
        assert open_image(Row("image", image=raw)).mode == "RGB"


def _rows(raw: bytes, name: str, spec: TaskSpec) -> None:
    path = PLACE / name
    path.write_bytes(raw)
    with suppress(DataError):
        for row in read_rows(str(path), spec, PLACE):
            assert row.label is not None
            assert len(row.hash) == 64


def lock(raw: bytes) -> None:
    """A lock file."""
    (PLACE / LOCK_NAME).write_bytes(raw)
    with suppress(SupermergeError):
        assert Lock.read(PLACE).format == 1


def coefficients(raw: bytes) -> None:
    """The metadata of a file of coefficients, in an otherwise good file."""
    path = PLACE / "coefficients.safetensors"
    text = b'{"__metadata__":' + raw + b',"g":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with suppress(SupermergeError):
        found = Coefficients.load(path)
        for name in found.groups:
            found.effective(name)


BASE = {
    "layers.0.q.weight": torch.ones(4, 4),
    "layers.0.q.bias": torch.ones(4),
    "layers.1.q.weight": torch.ones(4, 4),
    "embed.weight": torch.ones(6, 4),
}


def adapter(raw: bytes) -> None:
    """An adapter on a small base: two bytes that say how many bytes of tensors there are, the config, 0, the header."""
    config, _, text = raw[2:].partition(b"\0")
    (PLACE / CONFIG_NAME).write_bytes(config)
    tensors = bytes(int.from_bytes(raw[:2], "little"))
    (PLACE / WEIGHTS_NAME).write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    (PLACE / "model.safetensors").unlink(missing_ok=True)  # what another target left would be taken for a model
    with suppress(SupermergeError), ExitStack() as stack:
        expert = open_expert(PLACE, stack.enter_context(Checkpoint.open(BASE)), stack)
        for name, info in expert.tensors.items():
            assert tuple(expert.read(name).shape) == info.shape


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        header,
        safetensors,
        index,
        yaml,
        recipe,
        mergekit,
        override,
        jsonl,
        csv,
        image,
        lock,
        coefficients,
        adapter,
    )
}
