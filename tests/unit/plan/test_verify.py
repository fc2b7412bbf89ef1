from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from supermerge.checkpoint import hash_tensor
from supermerge.errors import CheckpointError, RefusedError
from supermerge.lock import Lock, LockedOutput, LockedSource, hash_file
from supermerge.verify import verify


@pytest.fixture
def merged(tmp_path: Path, write_models: Callable[..., None]) -> Path:
    write_models(tmp_path)
    directory = tmp_path / "base"
    (directory / "recipe.yaml").write_text("base: ./x\nexperts: {news: ./y}\nmethod: linear\n")
    (directory / "config.json").write_text("{}\n")
    tensors = load_file(directory / "model.safetensors")
    files = ["model.safetensors", "config.json"]
    Lock(
        created="2026-01-01T00:00:00Z",
        versions={"supermerge": "0"},
        seed=0,
        threads=1,
        recipe=hash_file(directory / "recipe.yaml"),
        base=LockedSource(ref="x"),
        experts={"news": LockedSource(ref="y")},
        output=LockedOutput(
            files={name: hash_file(directory / name) for name in files},
            tensors={name: hash_tensor(tensor) for name, tensor in tensors.items()},
        ),
    ).write(directory)
    return directory


def test_an_untouched_directory(merged: Path) -> None:
    verified = verify(merged)
    assert (verified.files, verified.tensors) == (3, 3)
    assert verified.bytes_read > 2 * (2 * 8 * 4 * 4)


def test_a_changed_tensor_is_named_even_where_no_file_is_hashed(merged: Path) -> None:
    lock = json.loads((merged / "recipe.lock.json").read_text())
    lock["output"]["files"] = {}
    (merged / "recipe.lock.json").write_text(json.dumps(lock))
    tensors = load_file(merged / "model.safetensors")
    tensors["layer.0.weight"][0, 0] += 1
    del tensors["steps"]
    save_file({**tensors, "extra": torch.ones(1)}, merged / "model.safetensors")
    with pytest.raises(RefusedError) as caught:
        verify(merged)
    said = caught.value.message.splitlines()[1:]
    assert sorted(said) == [
        "tensor extra was added",
        "tensor layer.0.weight has changed",
        "tensor steps is missing",
    ]


def test_changed_missing_and_added_files_are_named(merged: Path) -> None:
    (merged / "config.json").write_text("{ }\n")
    (merged / "recipe.yaml").unlink()
    save_file({"x": torch.ones(1)}, merged / "old.safetensors")
    with pytest.raises(RefusedError) as caught:
        verify(merged)
    assert sorted(caught.value.message.splitlines()[1:]) == [
        "config.json has changed",
        "old.safetensors was added",
        "recipe.yaml is missing",
    ]


def test_many_differences_are_counted(merged: Path) -> None:
    for number in range(14):
        save_file({"x": torch.ones(1)}, merged / f"{number:02}.safetensors")
    with pytest.raises(RefusedError, match="… and 4 more"):
        verify(merged)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}', "[]"])
def test_a_damaged_lock(merged: Path, content: str) -> None:
    (merged / "recipe.lock.json").write_text(content)
    with pytest.raises(CheckpointError, match="not a lock file of format 1"):
        verify(merged)


def test_not_a_merged_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        verify(tmp_path)
