from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from supermerge.tasks import TaskSpec
from supermerge.tasks.data import read_rows
from supermerge.tasks.images import open_image
from supermerge.tasks.rows import Row

MakeSpec = Callable[..., TaskSpec]


def test_jsonl(tmp_path: Path, spec: MakeSpec) -> None:
    lines = [
        '{"text": "good", "label": "pos", "id": 7}',
        "",
        '{"text": "", "label": 0}',
        '{"text": "é", "label": true}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = tmp_path / "a.jsonl"
    rows = read_rows("a.jsonl", spec(), tmp_path)
    assert [type(row.label) for row in rows] == [str, int, int]
    assert rows == [
        Row(f"{path}:1", texts=("good",), label="pos"),
        Row(f"{path}:3", texts=("",), label=0),
        Row(f"{path}:4", texts=("é",), label=1),
    ]


def test_byte_order_mark_is_skipped(tmp_path: Path, spec: MakeSpec) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\nx,1\r\n")
    (row,) = read_rows("a.csv", spec(), tmp_path)
    assert (row.texts, row.label) == (("x",), "1")


def test_csv_with_quotes_and_line_breaks(tmp_path: Path, spec: MakeSpec) -> None:
    (tmp_path / "a.csv").write_text('label,premise,hypothesis\nyes,"one, two\nthree","say ""hi"""\n\nno,a,b\n')
    rows = read_rows("a.csv", spec(text=["premise", "hypothesis"]), tmp_path)
    assert [row.texts for row in rows] == [("one, two\nthree", 'say "hi"'), ("a", "b")]
    assert [row.label for row in rows] == ["yes", "no"]
    assert [row.place for row in rows] == [f"{tmp_path / 'a.csv'}:2", f"{tmp_path / 'a.csv'}:5"]


def test_tsv_regression(tmp_path: Path, spec: MakeSpec) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\nx, y\t0.5\nz\t2\n")
    rows = read_rows("a.tsv", spec("regression"), tmp_path)
    assert [(row.texts, row.label) for row in rows] == [(("x, y",), 0.5), (("z",), 2.0)]
    assert all(isinstance(row.label, float) for row in rows)


def test_parquet_reads_only_the_columns_asked_for(tmp_path: Path, spec: MakeSpec) -> None:
    table = pa.table({"text": ["a", "b"], "label": [1.0, 0.0], "other": [b"x", None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = read_rows("a.parquet", spec(), tmp_path)
    assert [(row.texts, row.label) for row in rows] == [(("a",), 1), (("b",), 0)]
    assert rows[1].place == f"{tmp_path / 'a.parquet'}: row 2"
    assert type(rows[0].label) is int


def test_parquet_of_more_rows_than_a_batch(tmp_path: Path, spec: MakeSpec) -> None:
    parquet.write_table(pa.table({"text": [str(i) for i in range(2500)], "label": [0] * 2500}), tmp_path / "a.parquet")
    rows = read_rows("a.parquet", spec(), tmp_path)
    assert [row.texts[0] for row in rows] == [str(i) for i in range(2500)]
    assert rows[-1].place.endswith("row 2500")


@pytest.mark.parametrize("labelled", [True, False])
def test_generation(tmp_path: Path, spec: MakeSpec, labelled: bool) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "1+1", "a": "2"}')
    (row,) = read_rows("a.jsonl", spec("seq2seq", prompt="q", target="a"), tmp_path, labelled=labelled)
    assert (row.prompt, row.target, row.label) == ("1+1", "2" if labelled else None, None)


@pytest.mark.parametrize("labelled", [True, False])
def test_plain_language_modelling_always_reads_its_target(tmp_path: Path, spec: MakeSpec, labelled: bool) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "once"}')
    (row,) = read_rows("a.jsonl", spec("causal-lm", target="body"), tmp_path, labelled=labelled)
    assert (row.prompt, row.target) == (None, "once")


def test_unlabelled_rows_need_no_label_column(tmp_path: Path, spec: MakeSpec) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    (row,) = read_rows("a.jsonl", spec(), tmp_path, labelled=False)
    assert (row.texts, row.label) == (("x",), None)


def test_custom_reads_the_columns_it_names(tmp_path: Path, spec: MakeSpec) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "prompt": "p", "label": "c"}')
    (row,) = read_rows("a.jsonl", spec("custom", text="text", prompt="prompt"), tmp_path)
    assert (row.texts, row.prompt, row.target, row.label) == (("x",), "p", None, None)


def test_image_folder(image_folder: Path, spec: MakeSpec) -> None:
    rows = read_rows("pets", spec("image-classification"), image_folder.parent)
    assert [(row.image, row.label) for row in rows] == [
        (image_folder / "cat" / "a.png", "cat"),
        (image_folder / "cat" / "b.png", "cat"),
        (image_folder / "cat" / "more" / "c.png", "cat"),
        (image_folder / "dog" / "a.png", "dog"),
    ]
    assert rows[0].place == str(image_folder / "cat" / "a.png")


def test_image_folder_without_labels(image_folder: Path, spec: MakeSpec) -> None:
    flat = read_rows("cat", spec("image-classification"), image_folder, labelled=False)
    assert [row.label for row in flat] == [None]
    assert flat[0].image == image_folder / "cat" / "more" / "c.png"
    deep = read_rows("pets", spec("image-classification"), image_folder.parent, labelled=False)
    assert [row.label for row in deep] == [None] * 4


def test_image_folder_of_numbers(image_folder: Path, spec: MakeSpec) -> None:
    (image_folder / "cat").rename(image_folder / "1.5")
    (image_folder / "dog").rename(image_folder / "3")
    rows = read_rows("pets", spec("regression", image="image"), image_folder.parent)
    assert [row.label for row in rows] == [1.5, 1.5, 1.5, 3.0]


def test_image_column_of_paths(image_folder: Path, spec: MakeSpec, tmp_path: Path) -> None:
    (image_folder / "list.csv").write_text("image,label\ndog/a.png,dog\n")
    (row,) = read_rows("pets/list.csv", spec("image-classification"), tmp_path)
    assert row.image == image_folder / "dog" / "a.png"
    assert row.label == "dog"


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": "gone.png"}])
def test_image_column_of_bytes(
    tmp_path: Path, spec: MakeSpec, png: Callable[[int], bytes], wrap: Callable[[bytes], Any]
) -> None:
    parquet.write_table(pa.table({"image": [wrap(png(9))], "label": ["dark"]}), tmp_path / "a.parquet")
    (row,) = read_rows("a.parquet", spec("image-classification"), tmp_path)
    assert row.image == png(9)
    image = open_image(row)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), (9, 9, 9))


def test_open_image_from_a_file(image_folder: Path) -> None:
    assert open_image(Row("p", image=image_folder / "cat" / "a.png")).getpixel((0, 0)) == (1, 1, 1)


def test_open_image_turns_it_as_the_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    Image.new("L", (3, 2), 200).save(tmp_path / "a.jpg", exif=exif)
    image = open_image(Row("p", image=tmp_path / "a.jpg"))
    assert (image.mode, image.size) == ("RGB", (2, 3))
