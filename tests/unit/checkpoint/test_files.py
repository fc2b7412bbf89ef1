from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from supermerge.checkpoint import Buffer, Checkpoint, ShardWriter, TensorInfo, TensorSource
from supermerge.checkpoint import files as files_module
from supermerge.errors import CheckpointError, ResourceError, UsageError

Save = Callable[[str, dict[str, Tensor]], Path]


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        "matrix": torch.randn(7, 3, 2, generator=draws).bfloat16(),
        "vector": torch.randn(11, generator=draws),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "counts": torch.arange(6).view(2, 3),
    }


@pytest.fixture(params=["file", "memory"])
def source(request: pytest.FixtureRequest, save: Save, tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint.open(save("model", tensors) if request.param == "file" else tensors)


def test_infos(source: TensorSource, tensors: dict[str, Tensor]) -> None:
    assert source.tensors["matrix"] == TensorInfo("matrix", torch.bfloat16, (7, 3, 2))
    assert source.tensors["matrix"].numel == 42
    assert source.tensors["matrix"].nbytes == 84
    assert {name for name, info in source.tensors.items() if not info.is_floating} == {"counts"}
    assert set(source.tensors) == set(tensors)


@pytest.mark.parametrize("name", ["matrix", "vector", "scalar", "empty", "counts"])
def test_whole_tensors(source: TensorSource, tensors: dict[str, Tensor], name: str) -> None:
    found = source.read(name, buffer=Buffer())
    assert found.dtype == tensors[name].dtype
    assert torch.equal(found, tensors[name])


@pytest.mark.parametrize(
    "rows", [slice(2, 5), slice(None, 3), slice(5, None), slice(-2, None), slice(4, 4), slice(5, 2)]
)
def test_rows(source: TensorSource, tensors: dict[str, Tensor], rows: slice) -> None:
    found = source.read("matrix", rows)
    assert torch.equal(found, tensors["matrix"][rows])
    assert source.bytes_read == found.numel() * 2


def test_flat_ranges(source: TensorSource, tensors: dict[str, Tensor]) -> None:
    assert torch.equal(source.read_flat("matrix", 5, 40), tensors["matrix"].view(-1)[5:40])
    assert source.read_flat("vector", 4, 4).shape == (0,)
    assert source.bytes_read == 70


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 12)])
def test_flat_ranges_stay_inside(source: TensorSource, start: int, stop: int) -> None:
    with pytest.raises(UsageError, match=f"elements {start} to {stop} of tensor 'vector': it has 11"):
        source.read_flat("vector", start, stop)


@pytest.mark.parametrize(("name", "rows"), [("scalar", slice(0, 1)), ("vector", slice(0, 8, 2))])
def test_rows_need_a_dimension_and_step_one(source: TensorSource, name: str, rows: slice) -> None:
    with pytest.raises(UsageError, match="need a dimension and step 1"):
        source.read(name, rows)


def test_unknown_name(source: TensorSource) -> None:
    with pytest.raises(CheckpointError, match="there is no tensor 'nope' among its 5"):
        source.read("nope")


def test_a_buffer_is_used_again_and_grows(save: Save, tensors: dict[str, Tensor]) -> None:
    source, buffer = Checkpoint.open(save("model", tensors)), Buffer()
    first = source.read("vector", buffer=buffer)
    address, size = first.data_ptr(), buffer.nbytes
    assert address % os.sysconf("SC_PAGE_SIZE") == 0
    assert source.read("matrix", buffer=buffer).data_ptr() == address
    assert not torch.equal(first, tensors["vector"])
    buffer.take(size + 1)
    assert buffer.nbytes > size
    assert torch.equal(source.read("vector", buffer=buffer), tensors["vector"])


def test_without_a_buffer_tensors_are_their_own(save: Save, tensors: dict[str, Tensor]) -> None:
    with Checkpoint.open(save("model", tensors)) as source:
        found = {name: source.read(name) for name in tensors}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_several_threads_read_one_checkpoint(save: Save) -> None:
    tensors = {f"t{i}": torch.full((5000,), float(i)) for i in range(16)}
    source = Checkpoint.open(save("model", tensors))
    with ThreadPoolExecutor(8) as pool:
        for name, found in zip(tensors, pool.map(source.read, tensors), strict=True):
            assert torch.equal(found, tensors[name])
    assert source.bytes_read == 16 * 20_000


def test_long_reads_are_done_in_parts(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = torch.arange(1000.0)
    source = Checkpoint.open(save("model", {"a": vector}))
    monkeypatch.setattr(files_module, "LARGEST_READ", 300)
    assert torch.equal(source.read("a"), vector)


def test_a_file_cut_while_reading_is_named(save: Save) -> None:
    directory = save("model", {"a": torch.zeros(1000)})
    source = Checkpoint.open(directory)
    os.truncate(directory / "model.safetensors", 2000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: ended at byte 2000 while being read"):
        source.read("a")


def test_a_failing_disk_is_named(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Checkpoint.open(save("model", {"a": torch.zeros(10)}))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read at byte 96: Input/output error"):
        source.read("a")


def test_too_many_open_files(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = save("model", {"a": torch.zeros(10)})

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ResourceError, match="too many files are open") as caught:
        Checkpoint.open(directory)
    assert "ulimit -n" in str(caught.value.hint)


def test_closing_twice_is_harmless(source: Checkpoint) -> None:
    source.close()
    source.close()


@pytest.fixture
def sharded(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    directory = tmp_path / "sharded"
    directory.mkdir()
    infos = [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    with ShardWriter(directory, infos, shard_size=60) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.close()
    return directory


@pytest.mark.parametrize("ref", ["", "model.safetensors.index.json"])
def test_shards_are_one_checkpoint(sharded: Path, tensors: dict[str, Tensor], ref: str) -> None:
    with Checkpoint.open(sharded / ref) as source:
        assert len(source.fingerprint()) == 3
        assert source.directory == sharded
        for name, tensor in tensors.items():
            assert torch.equal(source.read(name), tensor)


def test_index_and_shards_must_agree(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    whole = json.loads(index.read_text())["weight_map"]
    assert whole["vector"] == "model-00002-of-00003.safetensors"
    index.write_text(json.dumps({"weight_map": whole | {"vector": "model-00001-of-00003.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"index puts tensor 'vector' in model-00001.*but it is in model-00002"):
        Checkpoint.open(sharded)
    index.write_text(json.dumps({"weight_map": whole | {"gone": "model-00002-of-00003.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"index puts tensor 'gone' in model-00002.*but it is in no shard"):
        Checkpoint.open(sharded)
    del whole["scalar"]
    index.write_text(json.dumps({"weight_map": whole}))
    with pytest.raises(CheckpointError, match=r"has tensor 'scalar', which the index does not name"):
        Checkpoint.open(sharded)


def test_a_name_in_two_shards_is_refused(tmp_path: Path, save: Save) -> None:
    directory = save("twice", {"a": torch.zeros(2)})
    (directory / "model.safetensors").rename(directory / "one.safetensors")
    (directory / "two.safetensors").write_bytes((directory / "one.safetensors").read_bytes())
    (directory / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    )
    with pytest.raises(CheckpointError, match=r"two\.safetensors: tensor 'a' is also in one\.safetensors"):
        Checkpoint.open(directory)
