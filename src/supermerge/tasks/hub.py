"""Data sets of the `datasets` library: one on the hub, or a folder that `save_to_disk` made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
class DatasetTable:
    """The records of one split, and the names of the classes where the label column has them."""

    records: Iterator[Record]
    label_names: tuple[str, ...] | None


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` made this folder."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def read_saved_dataset(folder: Path, split: str | None, columns: Sequence[str], *, label: str | None) -> DatasetTable:
    """Read `columns` of a folder that `save_to_disk` made. Raises DataError for a damaged folder, split or column."""
    import datasets
    import pyarrow as pa

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{folder}: cannot open this saved data set ({_first_line(error)})") from error
    return _table(str(folder), found, split, columns, label)


def read_hub_dataset(ref: str, columns: Sequence[str], *, label: str | None) -> DatasetTable:
    """Read `columns` of `datasets:ID[@REVISION][?config=NAME&split=NAME]`, through the library's cache.

    Raises DataError for an unknown id, config, split or column, and NetworkError where the hub cannot be reached.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    head, _, query = ref.removeprefix(PREFIX).partition("?")
    path, _, revision = head.partition("@")
    options = parse_options(ref, query, ("config", "split"))
    if not path:
        raise DataError(f"{ref}: names no data set", hint=_FORM)
    split = options.get("split")
    try:
        found = datasets.load_dataset(path, options.get("config"), split=split, revision=revision or None)
    except (ConnectionError, HfHubHTTPError) as error:
        raise NetworkError(
            f"{ref}: the hub cannot be reached ({_first_line(error)})",
            hint="Check the connection, or use a local file.",
        ) from error
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"{ref}: cannot open this data set ({_first_line(error)})", hint=_FORM) from error
    return _table(ref, found, split, columns, label)


def parse_options(ref: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    """`key=value&key=value` as a dictionary. Raises DataError for other keys and other forms."""
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        if key not in known or not value:
            raise DataError(f"{ref}: cannot read {pair!r} after the '?'", hint=f"Known: {', '.join(known)}. {_FORM}")
        options[key] = value
    return options


def _table(ref: str, found: Any, split: str | None, columns: Sequence[str], label: str | None) -> DatasetTable:
    table = _one_split(ref, found, split)
    require_columns(ref, table.column_names, columns)
    names = getattr(table.features[label], "names", None) if label is not None else None
    return DatasetTable(_records(ref, table.select_columns(list(columns))), None if names is None else tuple(names))


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
        hint="Add ?split=NAME to the reference.",
    )


def _records(ref: str, table: Dataset) -> Iterator[Record]:
    """The rows, images left as the bytes or paths they are stored as."""
    import datasets

    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    for number, record in enumerate(iter(table), start=1):
        yield f"{ref}: row {number}", dict(record)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
