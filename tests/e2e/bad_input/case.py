"""What a bad input is, and the ways to make one from the tiny example."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
RUN = ("run", "recipe.yaml", "--quiet")
MOOD = "experts/mood/model.safetensors"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@dataclass(frozen=True)
class Case:
    """`spoil` makes the tiny example, in the working directory, bad in the way that `name` says.

    `arguments` then end with exit code `code` and a message that holds every one of `says`. `own_process` runs them as
    a user would, the others run in the test's process.
    """

    name: str
    spoil: Callable[[Path], object]
    code: int
    says: tuple[str, ...]
    arguments: tuple[str, ...] = RUN
    own_process: bool = False


def nothing(tiny: Path) -> None:
    """The example as it is: the command itself is what is wrong."""


def recipe(**changes: object) -> Callable[[Path], object]:
    """Set keys of the recipe, with __ for dots; None deletes the key."""

    def spoil(tiny: Path) -> None:
        path = tiny / "recipe.yaml"
        document = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = document
            for parent in parents:
                place = place[parent]
            if value is None:
                del place[last]
            else:
                place[last] = value
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    return spoil


def text(content: str | bytes, name: str = "recipe.yaml") -> Callable[[Path], object]:
    """Replace a file."""
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda tiny: (tiny / name).write_bytes(raw)


def appended(line: str) -> Callable[[Path], object]:
    """Add a line to the recipe."""
    return lambda tiny: (tiny / "recipe.yaml").write_text((tiny / "recipe.yaml").read_text() + line + "\n")


def weights(change: Callable[[Tensors], object], where: str = "experts/mood") -> Callable[[Path], object]:
    """Change the tensors of a checkpoint, by name; its file stays well formed."""

    def spoil(tiny: Path) -> None:
        path = tiny / where / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change the JSON header of the expert's file; the tensors' bytes stay as they are."""

    def spoil(tiny: Path) -> None:
        raw = (tiny / MOOD).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        document = json.loads(raw[8 : 8 + length])
        change(document)
        changed = json.dumps(document).encode()
        (tiny / MOOD).write_bytes(len(changed).to_bytes(8, "little") + changed + raw[8 + length :])

    return spoil


def head(raw: bytes, *, length: int | None = None) -> Callable[[Path], object]:
    """Make the expert's file start with a header of these bytes, and claim `length` for it."""
    claimed = len(raw) if length is None else length
    return lambda tiny: (tiny / MOOD).write_bytes(claimed.to_bytes(8, "little") + raw)


def index(change: Callable[[Path, dict[str, Any]], object]) -> Callable[[Path], object]:
    """Split the expert into two shards with an index, then change the index or the files."""

    def spoil(tiny: Path) -> None:
        directory = tiny / "experts" / "mood"
        tensors = load_file(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        names = sorted(tensors)
        shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
        for file, part in shards.items():
            save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        document = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
        change(directory, document)
        (directory / "model.safetensors.index.json").write_text(json.dumps(document))

    return spoil


def json_file(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change a file that holds one JSON object."""

    def spoil(tiny: Path) -> None:
        document = json.loads((tiny / name).read_text())
        change(document)
        (tiny / name).write_text(json.dumps(document))

    return spoil


def rows(tiny: Path, name: str) -> list[dict[str, object]]:
    """The examples in a data file."""
    return [json.loads(line) for line in (tiny / "data" / name).read_text().splitlines()]


def data(name: str, change: Callable[[Path, list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], object]:
    """Replace the examples of a data file by `change(directory, examples)`."""

    def spoil(tiny: Path) -> None:
        lines = (json.dumps(row) + "\n" for row in change(tiny, rows(tiny, name)))
        (tiny / "data" / name).write_text("".join(lines))

    return spoil
