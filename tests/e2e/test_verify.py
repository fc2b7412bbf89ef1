"""`verify` and `verify --check`: output, inputs and class are proven against the lock, and the merge made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from supermerge import run
from supermerge.errors import CheckpointError, RefusedError
from supermerge.lock import Lock
from supermerge.recipe import Recipe
from supermerge.run.checking import check
from supermerge.verify import verify

QUERY = "encoder.layer.0.attention.self.query.weight"
METHODS = {
    "learned": ["method.steps=2"],
    "learned by row": ["method={name: supermerge, steps: 2, granularity: row}", "output.dtype=bfloat16"],
    "learned from a start": ["method={name: supermerge, steps: 2, init: iso_c, on: ties, granularity: row}"],
    "learned from statistics": ["method={name: supermerge, steps: 2, init: regmean}"],
    "surveyed": ["method={name: ties, density: 0.3}", "output.shard_size=20kB"],
    "random draws": ["method=dare_linear", "seed=7", "tasks={}", "output.dtype=float16"],
}


def make(tiny: Path, *overrides: str) -> Path:
    return run(Recipe.load(tiny / "recipe.yaml", overrides)).directory


@pytest.fixture(scope="module")
def merged_original(tiny_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verify") / "tiny"
    shutil.copytree(tiny_original, place)
    make(place, "method.steps=2")
    return place


@pytest.fixture
def place(merged_original: Path, tmp_path: Path) -> Path:
    """The tiny example with its merge, where it was not made."""
    shutil.copytree(merged_original, tmp_path / "moved")
    return tmp_path / "moved"


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", METHODS)
def test_the_merge_is_made_again_from_the_lock(name: str, tiny: Path) -> None:
    merged = make(tiny, *METHODS[name])
    verified = verify(merged)
    assert verified.inputs == ("base", "topic", "mood")
    assert (verified.unreachable, verified.loads_as) == ((), "BertModel")
    before = {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()}
    assert check(merged) == verified.tensors == 37
    assert {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()} == before


def test_inputs_are_found_after_the_whole_tree_moved(place: Path, merged_original: Path) -> None:
    assert str(merged_original) in Lock.read(place / "merged").base.ref
    change(merged_original / "experts" / "mood", lambda w: w[f"bert.{QUERY}"].add_(1))
    try:
        assert verify(place / "merged").inputs == ("base", "topic", "mood")
    finally:
        change(merged_original / "experts" / "mood", lambda w: w[f"bert.{QUERY}"].sub_(1))
        shutil.copy(place / "experts/mood/model.safetensors", merged_original / "experts/mood/model.safetensors")


@pytest.mark.parametrize(("where", "prefix"), [("base", ""), ("experts/mood", "bert.")])
def test_a_changed_input_is_named(place: Path, where: str, prefix: str) -> None:
    def one_bit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{prefix}{QUERY}"].view(torch.int32)[3, 4] ^= 1

    change(place / where, one_bit)
    label = "base" if where == "base" else "expert mood"
    with pytest.raises(RefusedError, match=rf"{label}: tensor {QUERY} has changed") as caught:
        verify(place / "merged")
    assert "Inputs were changed" in str(caught.value.hint)
    with pytest.raises(RefusedError, match="merged again, 1 of 37 tensors differ"):
        check(place / "merged")


def test_an_input_that_no_longer_fits_is_named(place: Path) -> None:
    change(place / "experts" / "mood", lambda w: w.update({f"bert.{QUERY}": torch.ones(4, 4)}))
    with pytest.raises(RefusedError, match=rf"(?s)experts do not fit the base.*{QUERY}: shape \[4, 4\]"):
        verify(place / "merged")


@pytest.mark.parametrize(("gone", "lost"), [("experts/mood", ("mood",)), ("base", ("base", "topic", "mood"))])
def test_inputs_that_are_gone(place: Path, tmp_path: Path, gone: str, lost: tuple[str, ...]) -> None:
    lock = place / "merged" / "recipe.lock.json"
    lock.write_text(lock.read_text().replace(str(Path(Lock.read(place / "merged").base.ref).parent), "/gone"))
    shutil.rmtree(place / gone)
    verified = verify(place / "merged")
    assert verified.unreachable == lost
    assert set(verified.inputs) == {"base", "topic", "mood"} - set(lost)
    with pytest.raises(CheckpointError, match=rf"cannot be merged again.*{lost[0]} \(/gone/"):
        check(place / "merged")


def test_other_bytes_on_merging_again_are_refused_with_the_versions_that_differ(place: Path) -> None:
    path = place / "merged" / "recipe.lock.json"
    lock = json.loads(path.read_text())
    lock["output"]["tensors"][QUERY] = "0" * 64
    path.write_text(json.dumps(lock))
    with pytest.raises(RefusedError, match=rf"1 of 37 tensors differ from recipe.lock.json: {QUERY}\n") as caught:
        check(place / "merged")
    assert caught.value.hint == "The same versions gave other bytes: please report this."
    lock["versions"]["torch"] = "0.4"
    path.write_text(json.dumps(lock))
    with pytest.raises(RefusedError) as caught:
        check(place / "merged")
    assert caught.value.hint == f"Versions differ: torch 0.4 then, {torch.__version__} now."
