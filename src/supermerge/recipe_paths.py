"""Which strings of a recipe are local paths, so that they can be read from, or written for, another directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Move = Callable[[Path], Path]

_DATA_KEYS = ("validation", "unlabelled", "test", "embeddings")
_HEADS_WITHOUT_PATH = ("expert", "zero-shot")
_MODEL_SUFFIXES = (".safetensors", ".json", ".bin", ".pt", ".pth")


def relocate(recipe: Mapping[str, Any], move: Move) -> dict[str, Any]:
    """`recipe` (in its long form) with every local path replaced by `move(path)`; hub ids and data set ids stay."""
    moved = dict(recipe)
    _change(moved, ("base",), move_model, move)
    for expert in _copied_items(moved, "experts"):
        _change(expert, ("model", "adapter"), move_model, move)
    for task in _copied_items(moved, "tasks"):
        _change(task, _DATA_KEYS, _data, move)
        if task.get("head") not in _HEADS_WITHOUT_PATH:
            _change(task, ("head",), _always, move)
    if isinstance(moved.get("output"), Mapping):
        moved["output"] = dict(moved["output"])
        _change(moved["output"], ("path",), _always, move)
    return moved


def read_by_tasks(tasks: Mapping[str, Any], *, heads: bool) -> list[Path]:
    """The local files and folders of examples that `tasks` name, and with `heads` those of heads."""
    found: list[Path] = []

    def note(path: Path) -> Path:
        found.append(path)
        return path

    for task in tasks.values():
        _change(dict(task), _DATA_KEYS, _data, note)
        if heads and task.get("head") not in _HEADS_WITHOUT_PATH:
            _change(dict(task), ("head",), _always, note)
    return found


def _copied_items(recipe: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The mappings under `recipe[key]`, copied in place; anything else is left for validation to refuse."""
    items = recipe.get(key)
    if not isinstance(items, Mapping):
        return []
    recipe[key] = {name: dict(item) if isinstance(item, Mapping) else item for name, item in items.items()}
    return [item for item in recipe[key].values() if isinstance(item, dict)]


def _change(part: dict[str, Any], keys: tuple[str, ...], as_kind: Callable[[str, Move], str], move: Move) -> None:
    for key in keys:
        if isinstance(part.get(key), str) and part[key]:
            part[key] = as_kind(part[key], move)


def _always(text: str, move: Move) -> str:
    return str(move(Path(os.path.expanduser(text))))


def _data(text: str, move: Move) -> str:
    return text if text.startswith("datasets:") else _always(text, move)


def move_model(text: str, move: Move) -> str:
    """`a/b` is a path where `a` exists beside the recipe, so that a missing `b` is not taken for a hub id."""
    written = Path(text)
    is_path = written.is_absolute() or text.startswith((".", "~")) or written.suffix in _MODEL_SUFFIXES
    if is_path or move(written).exists() or (len(written.parts) > 1 and move(Path(written.parts[0])).exists()):
        return _always(text, move)
    return text
