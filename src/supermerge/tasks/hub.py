"""Data sets of the `datasets` library: an id on the hub, a folder in its layout, or one saved by `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supermerge.errors import DataError, NetworkError
from supermerge.tasks.tables import Record, require_columns

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "datasets:"
_FORM = "Write datasets:ID[@REVISION][?config=NAME&split=NAME], e.g. datasets:nyu-mll/glue?config=sst2&split=train."


@dataclass(frozen=True)
class DatasetRef:
    """`datasets:ID[@REVISION][?config=NAME&split=NAME]`, taken apart. `path` is the id, or a local folder."""

    path: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @staticmethod
    def parse(ref: str) -> DatasetRef:
        """Take `ref` apart. Raises DataError where it is not of that form."""
        head, _, query = ref.removeprefix(PREFIX).partition("?")
        path, _, revision = head.partition("@")
        options: dict[str, str] = {}
        for pair in filter(None, query.split("&")):
            key, separator, value = pair.partition("=")
            if key not in ("config", "split") or not separator or not value:
                raise DataError(f"{ref}: cannot read {pair!r}", hint=_FORM)
            options[key] = value
        if not path:
            raise DataError(f"{ref}: names no data set", hint=_FORM)
        return DatasetRef(path, revision or None, options.get("config"), options.get("split"))


@dataclass(frozen=True)
class DatasetTable:
    """The records of one split, and the names of the classes where the label column has them."""

    records: Iterator[Record]
    label_names: tuple[str, ...] | None


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` made this folder."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read_dataset(ref: str, columns: Sequence[str], *, label: str | None, base_dir: Path) -> DatasetTable:
    """Open `ref` (`datasets:…`, or a saved folder) and read `columns` of one split; folders are relative to `base_dir`.

    Raises DataError for an unknown id, config, split or column, and NetworkError where the hub cannot be reached.
    """
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    asked = DatasetRef.parse(ref) if ref.startswith(PREFIX) else DatasetRef(ref)
    folder = base_dir / asked.path
    try:
        if is_saved_dataset(folder):
            found = datasets.load_from_disk(str(folder))
        else:
            path = str(folder) if folder.is_dir() else asked.path
            found = datasets.load_dataset(path, asked.config, split=asked.split, revision=asked.revision)
    except (ConnectionError, HfHubHTTPError) as error:
        raise NetworkError(
            f"{ref}: the hub cannot be reached ({_first_line(error)})",
            hint="Check the connection, or use a local file.",
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{ref}: cannot open this data set ({_first_line(error)})", hint=_FORM) from error
    table = _one_split(ref, found, asked.split)
    require_columns(ref, table.column_names, columns)
    label_names = getattr(table.features[label], "names", None) if label is not None else None
    return DatasetTable(_records(ref, table.select_columns(list(columns))), tuple(label_names) if label_names else None)


def _one_split(ref: str, found: Any, split: str | None) -> Dataset:
    """The split asked for; where none is, the only one there is."""
    import datasets

    if isinstance(found, datasets.Dataset):
        return found
    names = [str(name) for name in found]
    if split is None and len(names) == 1:
        return found[names[0]]
    if split in names:
        return found[split]
    raise DataError(
        f"{ref}: {'no split named' if split is None else f'no split {split!r}'}; found {', '.join(names) or 'none'}",
        hint=f"Add ?split=NAME, e.g. ?split={names[0]}." if names else _FORM,
    )


def _records(ref: str, table: Dataset) -> Iterator[Record]:
    """The rows, images left as the bytes or paths they are stored as."""
    import datasets

    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    for number, record in enumerate(table, start=1):
        if isinstance(record, Mapping):
            yield f"{ref}: row {number}", record


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
