"""Class names of a head, and the indices that labels in data files stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from supermerge.errors import CheckpointError, DataError, RecipeError
from supermerge.events import emit
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import closest

_GENERIC = re.compile(r"LABEL_\d+")
_INDEX = re.compile(r"[0-9]{1,9}")


def head_labels(
    config: Mapping[str, Any], *, names: Sequence[str] | None = None, count: int | None = None, where: str
) -> tuple[str, ...]:
    """The class names of a head, in the order of its outputs.

    `config` is the content of a config.json (`id2label`, else `label2id`, else `num_labels`); `count` is the number
    of outputs the head's weights have, and wins over a config that names no classes; `names` are the recipe's
    `labels` and win over the config's. `where` names the head in messages. Raises RecipeError where `names` do not
    fit the head, CheckpointError where config and weights disagree or neither says how many classes there are.
    """
    found = _configured(config, where)
    if found is not None and count is not None and len(found) != count and names is None:
        raise CheckpointError(
            f"{where}: its config names {len(found)} classes, its weights have {count} outputs",
            hint="Name the classes in the task: labels: [first, second, …].",
        )
    total = count if count is not None else None if found is None else len(found)
    if names is not None:
        if total is not None and len(names) != total:
            raise RecipeError(f"labels: {len(names)} names, but {where} has {total} outputs")
        return tuple(names)
    if found is not None:
        twice = next((name for name in found if found.count(name) > 1), None)
        if twice is not None:
            raise CheckpointError(
                f"{where}: its config gives the name {twice!r} to more than one class",
                hint="Name the classes in the task: labels: [first, second, …].",
            )
        return found
    if total is None:
        raise CheckpointError(
            f"{where}: neither its config nor its weights say how many classes it has",
            hint="Name the classes in the task: labels: [first, second, …].",
        )
    return tuple(f"LABEL_{index}" for index in range(total))


def _configured(config: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    id2label, label2id = config.get("id2label"), config.get("label2id")
    if id2label:
        by_index = {int(index): str(name) for index, name in id2label.items()}
    elif label2id:
        by_index = {int(index): str(name) for name, index in label2id.items()}
    elif config.get("num_labels"):
        return tuple(f"LABEL_{index}" for index in range(int(config["num_labels"])))
    else:
        return None
    if sorted(by_index) != list(range(len(by_index))):
        raise CheckpointError(f"{where}: id2label numbers its classes {sorted(by_index)}, expected 0, 1, 2, …")
    return tuple(by_index[index] for index in range(len(by_index)))


def class_indices(rows: Sequence[Row], names: Sequence[str], *, where: str) -> list[int]:
    """The index of every row's class among `names`, the class names of the head `where`.

    A text is a name or, where no class is called that, an index; a number is an index. Where the data set names its
    classes and the head knows the name, the name counts: data set and head may number the same classes differently.
    Raises DataError with the place of the first label that the head does not know.
    """
    index_of = {name: index for index, name in enumerate(names)}
    return [_class_index(row, index_of, where) for row in rows]


def _class_index(row: Row, index_of: Mapping[str, int], where: str) -> int:
    label = row.label
    if row.label_name is not None and not all(map(_GENERIC.fullmatch, index_of)):
        label = row.label_name
    if isinstance(label, str):
        if label in index_of:
            return index_of[label]
        label = int(label) if _INDEX.fullmatch(label) else label
    if isinstance(label, int) and 0 <= label < len(index_of):
        return label
    known = tuple(index_of)
    if isinstance(label, str) and not all(map(_GENERIC.fullmatch, known)):
        suggestion = closest(label, known)
    else:
        suggestion = f"; it has the classes 0 to {len(known) - 1}"
    shown = row.label if row.label_name is None else row.label_name
    raise DataError(
        f"{row.place}: label {shown!r} is unknown to {where}{suggestion}",
        hint="Correct the label, or name the head's classes in its order in the task: labels: [first, second, …].",
    )


def require_classes(indices: Sequence[int], num_classes: int, *, where: str) -> None:
    """Raise DataError where all labelled examples of `where` have one class; warn where some class cannot be there."""
    if len(set(indices)) < 2:
        raise DataError(
            f"{where}: all {len(indices)} examples have the same class; learning needs at least two",
            hint="Add examples of other classes.",
        )
    if len(indices) < num_classes:
        emit("warning", message=f"{where}: {len(indices)} examples for {num_classes} classes; some are never seen")
