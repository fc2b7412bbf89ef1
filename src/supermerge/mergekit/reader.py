"""From the documents of a file to checked merges, in the order in which they must be made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from supermerge.errors import RecipeError
from supermerge.mergekit.document import MergeDocument
from supermerge.recipe_errors import explain
from supermerge.recipe_overrides import apply_overrides
from supermerge.recipe_paths import Move, move_model
from supermerge.yaml_file import Document, write_yaml

_MODEL_KEYS = ("model", "base_model", "tokenizer_source", "source", "path")
_WORDS = {"tokenizer_source": ("union", "base"), "source": ("union", "base")}


@dataclass(frozen=True, slots=True)
class Mergekit:
    """The merges of a file by name, each after those that it uses; the last, called "", is what is written."""

    documents: Mapping[str, MergeDocument]
    written: tuple[Mapping[str, Any], ...]

    @property
    def final(self) -> MergeDocument:
        """The merge whose result is written."""
        return self.documents[""]

    @property
    def inputs(self) -> list[str]:
        """Every model that is read, each once; results of other merges are none."""
        found = [model for merge in self.documents.values() for model in merge.references]
        return [model for model in dict.fromkeys(found) if model not in self.documents]

    def to_yaml(self, relative_to: Path | None) -> str:
        """The documents again; local paths relative to the directory `relative_to` if given."""
        values = self.written
        if relative_to is not None:
            start = relative_to.resolve()

            def move(path: Path) -> Path:
                return Path(os.path.relpath(path.resolve(), start))

            values = [_moved(value, move, set(self.documents)) for value in values]
        return "---\n".join(write_yaml(dict(value)) for value in values)


def named_models(references: Sequence[str]) -> dict[str, str]:
    """Short names for models, a letter or digit first: the last parts of their paths, told apart by numbers."""
    named: dict[str, str] = {}
    taken: set[str] = set()
    for reference in references:
        last = re.sub(r"[^A-Za-z0-9_.-]", "-", reference.rstrip("/").split("@")[0].split("/")[-1]).lstrip("-.")[:90]
        name, number = last or "model", 2
        while name.lower() in taken:
            name, number = f"{last or 'model'}-{number}", number + 1
        taken.add(name.lower())
        named[name] = reference
    return named


def is_mergekit(documents: Sequence[Document]) -> bool:
    """Whether a file is mergekit's."""
    return any(isinstance(each.value, Mapping) and "merge_method" in each.value for each in documents)


def read_mergekit(documents: Sequence[Document], where: str, directory: Path, overrides: Sequence[str]) -> Mergekit:
    """Check `documents`; paths are relative to `directory` or, where nothing is there, to the working directory.

    `overrides` (`key.key=value`) go to the last document. Raises RecipeError for whatever cannot be honoured.
    """
    values = [dict(each.value) if isinstance(each.value, Mapping) else each.value for each in documents]
    for document, value in zip(documents, values, strict=True):
        if not isinstance(value, dict):
            raise RecipeError(f"{where}: one of the {len(documents)} documents is not a mapping with 'merge_method'")
        if "merge_method" not in value:
            line = document.line(next(iter(document.lines), ()))
            raise RecipeError(f"{where}, line {line}: key 'merge_method' is missing in this document")
    values[-1] = apply_overrides(values[-1], overrides)
    names = {str(value["name"]) for value in values if value.get("name")}

    def found(path: Path) -> Path:
        beside = Path(os.path.abspath(directory / path))
        return beside if beside.exists() or not path.exists() else Path(os.path.abspath(path))

    values = [_moved(value, found, names) for value in values]
    read: dict[str, MergeDocument] = {}
    for document, value in zip(documents, values, strict=True):
        merge = _checked(value, document, where)
        name = merge.name if merge.name and len(documents) > 1 else ""
        if name in read:
            what = f"two documents are called {name!r}" if name else "two documents have no name"
            raise RecipeError(f"{where}: {what}", hint="Name all documents but the one whose result is written.")
        read[name] = merge
    if "" not in read:
        raise RecipeError(
            f"{where}: all {len(read)} documents have names, so none says what is written",
            hint="Remove the name of the last merge.",
        )
    return Mergekit(_in_order(read, where), tuple(values))


def _checked(value: Mapping[str, Any], document: Document, where: str) -> MergeDocument:
    try:
        return MergeDocument.model_validate(value)
    except ValidationError as error:
        raise explain(error, MergeDocument, Document(value, document.lines), where) from error


def _in_order(read: Mapping[str, MergeDocument], where: str) -> dict[str, MergeDocument]:
    """The merge "" last, the others before those that use them; RecipeError for circles and for those unused."""
    order: dict[str, MergeDocument] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " -> ".join([*above[above.index(name) :], name])
            raise RecipeError(f"{where}: merges use each other in a circle: {circle}")
        for other in read[name].references:
            if other in read and other not in order:
                visit(other, (*above, name))
        order[name] = read[name]

    visit("", ())
    unused = [name for name in read if name not in order]
    if unused:
        raise RecipeError(f"{where}: nothing uses the merge {unused[0]!r}", hint="Remove it, or use its result.")
    return order


def _moved(value: Any, move: Move, names: set[str]) -> Any:
    """`value` with the local paths of models moved; words and the names of other merges stay."""
    if isinstance(value, list):
        return [_moved(item, move, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: move_model(item, move)
        if key in _MODEL_KEYS and isinstance(item, str) and item and item not in (*names, *_WORDS.get(key, ()))
        else _moved(item, move, names)
        for key, item in value.items()
    }
