"""Every kind of bad data: one DataError that says where, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from supermerge.errors import DataError
from supermerge.tasks import TaskSpec
from supermerge.tasks.data import read_rows
from supermerge.tasks.images import open_image
from supermerge.tasks.rows import Row

MakeSpec = Callable[..., TaskSpec]
OK = b'{"text": "a", "label": "b"}\n'

TABLES: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("a.jsonl", OK + b'{"text": \n', {}, "{file}:2: not valid JSON (Expecting value)"),
    ("a.jsonl", OK + b'["a", "b"]\n', {}, "{file}:2: expected a JSON object, found list"),
    ("a.jsonl", b"9" * 5000, {}, "{file}:1: not valid JSON (Exceeds the limit (4300 digits)"),
    ("a.jsonl", b"[" * 100_000, {}, "{file}:1: not valid JSON (maximum recursion depth exceeded"),
    ("a.jsonl", b'{"txt": "a", "label": 1}', {}, "{file}:1: no column 'text'; found 'txt', 'label'"),
    ("a.jsonl", OK + b'{"text": "a"}', {}, "{file}:2: no column 'label'; found 'text'"),
    ("a.jsonl", b"{}", {}, "{file}:1: no column 'text'; found none"),
    ("a.jsonl", OK + b'{"text": "caf\xe9"}', {}, "{file}:2: not UTF-8 text (byte 0xe9 at position 13)"),
    ("a.jsonl", b"", {}, "a.jsonl: no examples in it"),
    ("a.jsonl", b"\n\n", {}, "a.jsonl: no examples in it"),
    ("a.jsonl", b'{"text": 3, "label": 1}', {}, "{file}:1: column 'text': expected text, found int 3"),
    ("a.jsonl", b'{"text": null, "label": 1}', {}, "{file}:1: column 'text': expected text, found nothing"),
    (
        "a.jsonl",
        b'{"text": "\\ud83d", "label": 1}',
        {},
        "{file}:1: column 'text': the text holds half of a surrogate pair",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": null}',
        {},
        "{file}:1: column 'label': expected a class name or index, found nothing",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": 0.5}',
        {},
        "{file}:1: column 'label': expected a class name or index, found float 0.5",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": ["b"]}',
        {},
        "{file}:1: column 'label': expected a class name or index, found list ['b']",
    ),
    (
        "a.csv",
        b"text,label\na,\n",
        {},
        "{file}:2: column 'label': expected a class name or index, found str ''",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": "high"}',
        {"kind": "regression"},
        "{file}:1: column 'label': expected a finite number, found str 'high'",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": NaN}',
        {"kind": "regression"},
        "{file}:1: column 'label': expected a finite number, found float nan",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": 1' + b"0" * 400 + b"}",
        {"kind": "regression"},
        "{file}:1: column 'label': expected a finite number, found int 1000000000000000000000000000000000000000…",
    ),
    (
        "a.jsonl",
        b'{"text": "a", "label": -1e300}',
        {"kind": "regression"},
        "{file}:1: column 'label': expected a number up to 3.4e+38, the largest of fp32, found float -1e+300",
    ),
    ("a.csv", b"", {}, "a.csv: no examples in it"),
    ("a.csv", b"text,label\n", {}, "a.csv: no examples in it"),
    ("a.csv", b"sentence,label\na,b\n", {}, "{file}:1: no column 'text'; found 'sentence', 'label'"),
    ("a.csv", b"text,label,text\na,b,c\n", {}, "{file}:1: column 'text' is in the header twice"),
    ("a.csv", b"text,label\na,b\na, with a comma,b\n", {}, "{file}:3: found 3 fields, the header has 2"),
    ("a.csv", b'text,label\na,b\n"open,b\n', {}, "{file}:3: not valid CSV (unexpected end of data)"),
    ("a.tsv", b'text\tlabel\n"Hi" he said\tb\n', {}, "{file}:2: not valid TSV ('\t' expected after '\"')"),
    ("a.csv", b"text,label\n\xff\xfe,b\n", {}, "{file}:2: not UTF-8 text (byte 0xff at position 0)"),
    ("a.parquet", b"PAR1 but not really", {}, "{file}: not a readable Parquet file ("),
    ("a.parquet", b"", {}, "{file}: not a readable Parquet file ("),
    ("a.json", OK, {}, "{file}: cannot read a file that ends in '.json'"),
    ("README", OK, {}, "{file}: cannot read a file that ends in 'nothing'"),
    (
        "a.jsonl",
        b'{"image": "a photo of a cat", "label": "b"}',
        {"kind": "image-classification"},
        "{file}:1: column 'image': expected an image file, found str 'a photo of a cat'",
    ),
    (
        "a.jsonl",
        b'{"image": "' + b"long " * 2000 + b'", "label": "b"}',
        {"kind": "image-classification"},
        "{file}:1: column 'image': expected an image file, found str 'long long long long long long long long…",
    ),
    (
        "a.jsonl",
        b'{"image": "nul \\u0000", "label": "b"}',
        {"kind": "image-classification"},
        "{file}:1: column 'image': expected an image file, found str 'nul \\x00'",
    ),
    (
        "a.jsonl",
        b'{"image": "a.jsonl", "label": "b"}',
        {"kind": "image-classification"},
        "{file}:1: column 'image': {file}: expected an image, found what cannot be read as one",
    ),
    (
        "a.jsonl",
        b'{"image": 7, "label": "b"}',
        {"kind": "image-classification"},
        "{file}:1: column 'image': expected an image, found int 7",
    ),
    (
        "a.jsonl",
        b'{"image": {"bytes": null, "path": null}, "label": "b"}',
        {"kind": "image-classification"},
        "{file}:1: column 'image': expected an image, found nothing",
    ),
    (
        "a.jsonl",
        b'{"prompt": "q", "label": "b"}',
        {"kind": "seq2seq"},
        "{file}:1: no column 'target'; found 'prompt', 'label'",
    ),
]


@pytest.mark.parametrize(("name", "content", "fields", "message"), TABLES, ids=[case[-1][:70] for case in TABLES])
def test_table(tmp_path: Path, spec: MakeSpec, name: str, content: bytes, fields: dict[str, Any], message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(name, spec(**fields), tmp_path)
    assert caught.value.message.startswith(message.replace("{file}", str(file)))


def test_missing_file(tmp_path: Path, spec: MakeSpec) -> None:
    with pytest.raises(DataError) as caught:
        read_rows("data/vaild.jsonl", spec(), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/data/vaild.jsonl: no such file or folder\n"
        "Paths are relative to the recipe. A data set on the hub is written datasets:ID?split=NAME."
    )


def test_a_name_the_file_system_refuses(tmp_path: Path, spec: MakeSpec) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(File name too long\)"):
        read_rows("x" * 300 + ".jsonl", spec(), tmp_path)


def test_parquet_column_missing(tmp_path: Path, spec: MakeSpec) -> None:
    parquet.write_table(pa.table({"sentence": ["a"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_rows("a.parquet", spec(), tmp_path)
    assert caught.value.message == f"{tmp_path / 'a.parquet'}: no column 'text'; found 'sentence', 'label'"


def test_parquet_cell_of_another_kind(tmp_path: Path, spec: MakeSpec) -> None:
    parquet.write_table(pa.table({"image": [b"x", b"no image"], "label": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_rows("a.parquet", spec("image-classification"), tmp_path)
    assert caught.value.message == (
        f"{tmp_path}/a.parquet: row 1: column 'image': expected an image, found what cannot be read as one"
    )


def test_folder_for_a_task_without_images(image_folder: Path, spec: MakeSpec) -> None:
    with pytest.raises(DataError) as caught:
        read_rows("pets", spec(), image_folder.parent)
    assert caught.value.message == f"{image_folder}: a folder holds images, and a text-classification task reads none"


def test_image_folder_without_classes(image_folder: Path, spec: MakeSpec) -> None:
    with pytest.raises(DataError) as caught:
        read_rows("pets/dog", spec("image-classification"), image_folder.parent)
    assert caught.value.message == f"{image_folder}/dog: expected one sub-folder per class, found none"


def test_text_file_among_the_images(image_folder: Path, spec: MakeSpec) -> None:
    (image_folder / "dog" / "notes.txt").write_text("woof")
    with pytest.raises(DataError) as caught:
        read_rows("pets", spec("image-classification"), image_folder.parent)
    assert caught.value.message == (
        f"{image_folder}/dog/notes.txt: expected an image, found what cannot be read as one"
    )


def test_image_folder_of_empty_classes(tmp_path: Path, spec: MakeSpec) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"^pets: no examples in it"):
        read_rows("pets", spec("image-classification"), tmp_path)


def test_truncated_image(tmp_path: Path, png: Callable[[int], bytes]) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png(1)[:-30])
    with pytest.raises(DataError, match=f"^{file}: the image is damaged \\("):
        open_image(Row(str(file), image=file))


def test_image_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^p: the image is damaged \(.*No such file"):
        open_image(Row("p", image=tmp_path / "gone.png"))
    with pytest.raises(DataError, match=r"^p: expected an image, found none$"):
        open_image(Row("p"))
