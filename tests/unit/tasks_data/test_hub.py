from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from supermerge.errors import DataError, NetworkError
from supermerge.tasks import TaskSpec
from supermerge.tasks.data import read_rows

MakeSpec = Callable[..., TaskSpec]


@pytest.fixture
def table() -> datasets.Dataset:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "n": datasets.Value("int8"),
        }
    )
    return datasets.Dataset.from_dict({"text": ["bad", "good"], "label": [0, 1], "n": [1, 2]}, features=features)


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def test_saved_data_set_keeps_its_class_names(tmp_path: Path, spec: MakeSpec, table: datasets.Dataset) -> None:
    table.save_to_disk(tmp_path / "saved")
    rows = read_rows("saved", spec(), tmp_path)
    assert [(row.texts, row.label, row.label_name) for row in rows] == [(("bad",), 0, "neg"), (("good",), 1, "pos")]
    assert rows[1].place == f"{tmp_path / 'saved'}: row 2"


def test_saved_splits(tmp_path: Path, spec: MakeSpec, table: datasets.Dataset) -> None:
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "saved")
    assert [row.texts for row in read_rows("saved?split=test", spec(), tmp_path)] == [("good",)]
    with pytest.raises(DataError) as caught:
        read_rows("saved", spec(), tmp_path)
    assert caught.value.message == f"{tmp_path / 'saved'}: no split named; found train, test"
    with pytest.raises(DataError) as caught:
        read_rows("saved?split=dev", spec(), tmp_path)
    assert caught.value.message == f"{tmp_path / 'saved'}: no split 'dev'; found train, test"
    with pytest.raises(DataError) as caught:
        read_rows("saved?config=a", spec(), tmp_path)
    assert caught.value.message == "saved?config=a: cannot read 'config=a' after the '?'"


def test_a_single_saved_split_needs_no_name(tmp_path: Path, spec: MakeSpec, table: datasets.Dataset) -> None:
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    assert len(read_rows("saved", spec(), tmp_path)) == 2


def test_unlabelled_split(tmp_path: Path, spec: MakeSpec, table: datasets.Dataset) -> None:
    table.remove_columns("label").save_to_disk(tmp_path / "saved")
    assert [row.label for row in read_rows("saved", spec(), tmp_path, labelled=False)] == [None, None]
    with pytest.raises(DataError, match="no column 'label'; found 'text', 'n'"):
        read_rows("saved", spec(), tmp_path)


def test_image_feature_stays_encoded(tmp_path: Path, spec: MakeSpec, png: Callable[[int], bytes]) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    images = datasets.Dataset.from_dict({"image": [{"bytes": png(4), "path": None}], "label": ["d"]}, features=features)
    images.save_to_disk(tmp_path / "saved")
    (row,) = read_rows("saved", spec("image-classification"), tmp_path)
    assert (row.image, row.label, row.label_name) == (png(4), "d", None)


def test_damaged_saved_data_set(tmp_path: Path, spec: MakeSpec, table: datasets.Dataset) -> None:
    table.save_to_disk(tmp_path / "saved")
    for file in (tmp_path / "saved").glob("*.arrow"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="saved: cannot open this saved data set \\("):
        read_rows("saved", spec(), tmp_path)


def test_hub_reference_is_taken_apart(tmp_path: Path, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(path: str, config: str | None, *, split: str | None, revision: str | None) -> datasets.Dataset:
        asked.append((path, config, split, revision))
        return datasets.Dataset.from_dict({"text": ["a"], "label": [1]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    read_rows("datasets:nyu-mll/glue@v1?config=sst2&split=train[:32]+test", spec(), tmp_path)
    (row,) = read_rows("datasets:imdb", spec(), tmp_path)
    assert asked == [("nyu-mll/glue", "sst2", "train[:32]+test", "v1"), ("imdb", None, None, None)]
    assert (row.place, row.label, row.label_name) == ("datasets:imdb: row 1", 1, None)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("datasets:", "datasets:: names no data set"),
        ("datasets:?split=train", "datasets:?split=train: names no data set"),
        ("datasets:imdb?spilt=train", "datasets:imdb?spilt=train: cannot read 'spilt=train' after the '?'"),
        ("datasets:imdb?split=", "datasets:imdb?split=: cannot read 'split=' after the '?'"),
    ],
)
def test_bad_hub_reference(tmp_path: Path, spec: MakeSpec, ref: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(ref, spec(), tmp_path)
    assert caught.value.message == message


def test_hub_out_of_reach(tmp_path: Path, spec: MakeSpec) -> None:
    with pytest.raises(NetworkError) as caught:
        read_rows("datasets:no-one/nothing?split=train", spec(), tmp_path)
    assert caught.value.message.startswith("datasets:no-one/nothing?split=train: the hub cannot be reached (")


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("Unknown split \"dev\". Should be one of ['train'].\nmore"),
        datasets.exceptions.DatasetNotFoundError("Unknown split \"dev\". Should be one of ['train']."),
    ],
)
def test_hub_refuses(tmp_path: Path, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    def load(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError) as caught:
        read_rows("datasets:imdb?split=dev", spec(), tmp_path)
    assert caught.value.message == (
        "datasets:imdb?split=dev: cannot open this data set (Unknown split \"dev\". Should be one of ['train'].)"
    )
