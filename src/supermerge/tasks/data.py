"""Data named in a recipe, read into rows: which reader, which columns, and what every cell must hold.

What a reference names:

- `datasets:ID[@REVISION][?config=NAME&split=NAME]`: a data set on the hub;
- a file: `.jsonl`, `.ndjson`, `.csv`, `.tsv` or `.parquet`;
- a folder made by the `datasets` library's `save_to_disk`, with `?split=NAME` where it holds several splits;
- any other folder: images, one sub-folder per class.

Without the prefix nothing is ever looked up on a hub, so a path with a typing error stays a missing file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supermerge.errors import DataError
from supermerge.tasks.cells import label_cell, text_cell
from supermerge.tasks.hub import (
    PREFIX,
    DatasetTable,
    is_saved_dataset,
    parse_options,
    read_hub_dataset,
    read_saved_dataset,
)
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
    if ref.startswith(PREFIX):
        rows = columns.rows_of(read_hub_dataset(ref, columns.names, label=columns.label), base_dir)
    else:
        try:
            rows = _read_path(ref, spec, columns, base_dir)
        except OSError as error:
            raise DataError(f"{error.filename or ref}: cannot be read ({error.strerror or error})") from error
    if not rows:
        raise DataError(f"{ref}: no examples in it", hint="Every file that a task names needs at least one example.")
    return rows


def _read_path(ref: str, spec: TaskSpec, columns: _Columns, base_dir: Path) -> list[Row]:
    name, _, query = (ref, "", "") if (base_dir / ref).exists() else ref.partition("?")
    path = base_dir / name
    if is_saved_dataset(path):
        split = parse_options(ref, query, ("split",)).get("split")
        return columns.rows_of(read_saved_dataset(path, split, columns.names, label=columns.label), path)
    if path.is_dir():
        if spec.image is None:
            raise DataError(
                f"{path}: a folder holds images, and a {spec.type} task reads none",
                hint="Name a file in it.",
            )
        return [columns.checked(row) for row in read_image_folder(path, labelled=columns.label is not None)]
    if path.is_file():
        return [columns.row(place, record, path.parent) for place, record in read_table(path, columns.names)]
    if path.exists():
        raise DataError(f"{path}: is neither a plain file nor a folder", hint="Examples are read more than once.")
    raise DataError(
        f"{path}: no such file or folder",
        hint=f"Paths are relative to the recipe. A data set on the hub is written {PREFIX}ID?split=NAME.",
    )


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

        def image(column: str) -> Path | bytes:
            return image_of(record[column], column=column, place=place, base_dir=base_dir)

        return self.checked(
            Row(
                place=place,
                texts=tuple(text(column) for column in self.texts),
                image=image(self.image) if self.image else None,
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

    def rows_of(self, table: DatasetTable, base_dir: Path) -> list[Row]:
        """The rows of a data set, with its own names of the classes."""
        rows = [self.row(place, record, base_dir) for place, record in table.records]
        names: dict[object, str] = dict(enumerate(table.label_names or ()))
        return [replace(row, label_name=names[row.label]) if row.label in names else row for row in rows]
