"""Data named in a recipe, read into rows: which reader, which columns, and what every cell must hold.

What a reference names, in this order:

- `datasets:ID[@REVISION][?config=NAME&split=NAME]`: a data set of the `datasets` library; ID is a folder relative to
  the recipe where there is one (in the hub's layout, or saved by `save_to_disk`), else an id on the hub;
- a folder made by `save_to_disk`, of one split;
- any other folder: images, one sub-folder per class;
- a file: `.jsonl`, `.ndjson`, `.csv`, `.tsv` or `.parquet`.

Without the prefix nothing is ever looked up on a hub, so a path with a typing error stays a missing file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supermerge.errors import DataError
from supermerge.tasks.cells import label_cell, text_cell
from supermerge.tasks.hub import PREFIX, is_saved_dataset, read_dataset
from supermerge.tasks.images import image_of, read_image_folder
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.tables import read_table


def read_rows(ref: str, spec: TaskSpec, base_dir: Path, *, labelled: bool = True) -> list[Row]:
    """Read the examples `ref` names, for the task `spec`; paths are relative to `base_dir`.

    With `labelled` False neither the label nor the target is read, and their columns may be missing. Raises DataError
    (file and line, what was found, what was expected), also where there is no example at all; NetworkError from hubs.
    """
    columns = _Columns.of(spec, labelled=labelled)
    path = base_dir / ref
    if ref.startswith(PREFIX) or is_saved_dataset(path):
        table = read_dataset(ref, columns.names, label=columns.label, base_dir=base_dir)
        rows = [
            _with_class_name(columns.row(place, record, base_dir), table.label_names)
            for place, record in table.records
        ]
    elif path.is_dir():
        if spec.image is None:
            raise DataError(f"{path}: a folder holds images, and this {spec.type} task reads none")
        rows = [columns.checked(row) for row in read_image_folder(path, labelled=columns.label is not None)]
    elif path.is_file():
        rows = [columns.row(place, record, path.parent) for place, record in read_table(path, columns.names)]
    else:
        raise DataError(
            f"{path}: no such file or folder",
            hint=f"Paths are relative to the recipe. A data set on a hub is written {PREFIX}ID?split=NAME.",
        )
    if not rows:
        raise DataError(f"{ref}: no examples in it", hint="Every file that a task names needs at least one example.")
    return rows


@dataclass(frozen=True)
class _Columns:
    """The columns a task reads; `numeric` where the label is a number and not a class."""

    texts: tuple[str, ...]
    image: str | None
    prompt: str | None
    target: str | None
    label: str | None
    numeric: bool

    @staticmethod
    def of(spec: TaskSpec, *, labelled: bool) -> _Columns:
        return _Columns(
            texts=spec.text_columns,
            image=spec.image,
            prompt=spec.prompt,
            # Plain language modelling has nothing but its target to read.
            target=spec.target if labelled or spec.prompt is None else None,
            label=spec.label if labelled else None,
            numeric=spec.type == "regression",
        )

    @property
    def names(self) -> list[str]:
        optional = (self.image, self.prompt, self.target, self.label)
        return list(dict.fromkeys([*self.texts, *(name for name in optional if name is not None)]))

    def row(self, place: str, record: Mapping[str, Any], base_dir: Path) -> Row:
        def text(column: str) -> str:
            return text_cell(record[column], column=column, place=place)

        image = self.image and image_of(record[self.image], column=self.image, place=place, base_dir=base_dir)
        return self.checked(
            Row(
                place=place,
                texts=tuple(text(column) for column in self.texts),
                image=image or None,
                prompt=text(self.prompt) if self.prompt else None,
                target=text(self.target) if self.target else None,
                label=record[self.label] if self.label else None,
            )
        )

    def checked(self, row: Row) -> Row:
        """`row` with its label as a class or a number."""
        if self.label is None:
            return row
        return replace(row, label=label_cell(row.label, column=self.label, place=row.place, numeric=self.numeric))


def _with_class_name(row: Row, names: tuple[str, ...] | None) -> Row:
    """`row` with the data set's own name of its class index."""
    if names is None or not isinstance(row.label, int) or not 0 <= row.label < len(names):
        return row
    return replace(row, label_name=names[row.label])
