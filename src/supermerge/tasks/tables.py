"""Tables in files: JSON lines, CSV, TSV and Parquet, one record at a time, each with the place where it stands."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from supermerge.errors import DataError

Record = tuple[str, Mapping[str, Any]]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = {".jsonl", ".ndjson"}
TABLE_ENDINGS = (*sorted(_JSON_LINES), *_DELIMITERS, ".parquet")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """Yield (place, record) for every row of `path`; the place is `file:line`, or `file: row n` in Parquet.

    Every name in `columns` is in every record. Text files are UTF-8 (a byte order mark is skipped). CSV and TSV have a
    header line and quote fields as RFC 4180 says. Raises DataError with file and line.
    """
    ending = path.suffix.lower()
    if ending in _JSON_LINES:
        return _json_lines(path, columns)
    if ending in _DELIMITERS:
        return _delimited(path, columns, _DELIMITERS[ending])
    if ending == ".parquet":
        return _parquet(path, columns)
    raise DataError(
        f"{path}: cannot read a file that ends in {ending or 'nothing'!r}",
        hint=f"Supported: {', '.join(TABLE_ENDINGS)}, a folder of images, or datasets:ID?split=NAME.",
    )


def require_columns(place: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError naming the first of `wanted` that is missing, and the columns there are."""
    for column in wanted:
        if column not in found:
            raise DataError(
                f"{place}: no column {column!r}; found {', '.join(map(repr, found)) or 'none'}",
                hint="Name the columns of the file in the task, e.g. text: sentence, label: class.",
            )


def _text_lines(path: Path) -> Iterator[str]:
    """Lines with their line ends, decoded one by one so that a bad byte can be given its line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not UTF-8 text (byte 0x{line[error.start]:02x} at position {error.start})",
                    hint="Convert the file, e.g. iconv -f latin1 -t utf-8.",
                ) from error


def _json_lines(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    for number, line in enumerate(_text_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = json.loads(line, object_pairs_hook=_once_each)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(
                f"{place}: not valid JSON ({reason})",
                hint='Every line is one JSON object, such as {"text": "…", "label": "…"}.',
            ) from error
        if not isinstance(record, dict):
            raise DataError(f"{place}: expected a JSON object, found {type(record).__name__}")
        require_columns(place, list(record), columns)
        yield place, record


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return found


def _delimited(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Record]:
    reader = csv.reader(_text_lines(path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for fields in reader:
            place, start = f"{path}:{start}", reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = fields
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise DataError(f"{place}: column {twice[0]!r} is in the header twice")
                require_columns(place, header, columns)
            elif len(fields) != len(header):
                raise DataError(
                    f"{place}: found {len(fields)} fields, the header has {len(header)}",
                    hint=f"Put double quotes around a field that holds {delimiter!r} or a line break.",
                )
            else:
                yield place, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not valid {path.suffix[1:].upper()} ({error})",
            hint='Quote fields as RFC 4180 says (a quote inside a quoted field is ""), or use JSON lines.',
        ) from error


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            require_columns(str(path), file.schema_arrow.names, columns)
            for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", record
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
