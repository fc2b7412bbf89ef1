from __future__ import annotations

import errno
import json
import os
import resource
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supermerge.checkpoint import Checkpoint, ShardWriter, TensorInfo, hash_tensor, load_tensors, save_tensors
from supermerge.checkpoint.shards import split_into_shards
from supermerge.errors import CheckpointError, ResourceError, UsageError
from supermerge.events import Event, subscribed

TENSORS = {
    "b": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "a": torch.randn(7, 3, generator=torch.Generator().manual_seed(1)),
    "e": torch.zeros(0, 3),
    "s": torch.tensor(2.0),
    "i": torch.arange(9),
}
INFOS = [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()]


def test_one_file_equals_the_library_s(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, INFOS, shard_size=10**9) as writer:
        for name in reversed(TENSORS):
            writer.write(name, TENSORS[name])
        hashes = writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == safetensors.torch.save(TENSORS, {"format": "pt"})
    assert hashes == {name: hash_tensor(tensor) for name, tensor in TENSORS.items()}


def test_shards_and_their_index(tmp_path: Path) -> None:
    events: list[Event] = []
    with subscribed(events.append), ShardWriter(tmp_path, INFOS, shard_size=100) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)
        writer.close()
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_parameters": 46, "total_size": 190},
        "weight_map": {
            "b": "model-00001-of-00003.safetensors",
            "a": "model-00002-of-00003.safetensors",
            "e": "model-00002-of-00003.safetensors",
            "s": "model-00002-of-00003.safetensors",
            "i": "model-00003-of-00003.safetensors",
        },
    }
    for file in set(index["weight_map"].values()):
        expected = {name: TENSORS[name] for name, place in index["weight_map"].items() if place == file}
        assert (tmp_path / file).read_bytes() == safetensors.torch.save(expected, {"format": "pt"})
    written = {event.fields["path"]: event.fields["bytes"] for event in events if event.kind == "written"}
    assert written == {str(path): path.stat().st_size for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ([4, 4, 4], 12, [3]),
        ([4, 4, 4], 11, [2, 1]),
        ([4, 40, 4], 12, [1, 1, 1]),
        ([40], 1, [1]),
        ([4, 4], 1, [1, 1]),
        ([], 9, [0]),
    ],
)
def test_how_tensors_are_dealt_out(sizes: list[int], limit: int, expected: list[int]) -> None:
    infos = [TensorInfo(f"t{i}", torch.int8, (size,)) for i, size in enumerate(sizes)]
    shards = split_into_shards(infos, limit)
    assert [len(shard) for shard in shards.values()] == expected
    assert [info for shard in shards.values() for info in shard] == infos


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 99), max_size=8).map(sorted), st.randoms(use_true_random=False))
def test_chunks_in_any_order_give_the_same_file_and_hash(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], draws: Random
) -> None:
    tensor = torch.arange(100.0).view(4, 25)
    chunks = list(zip([0, *cuts], [*cuts, 100], strict=True))
    draws.shuffle(chunks)
    directory = tmp_path_factory.mktemp("chunks")
    with ShardWriter(directory, [TensorInfo("a", tensor.dtype, (4, 25))], shard_size=10**6) as writer:
        for start, stop in chunks:
            writer.write_flat("a", start, tensor.view(-1)[start:stop])
        assert writer.close() == {"a": hash_tensor(tensor)}
    assert torch.equal(Checkpoint.open(directory).read("a"), tensor)


def test_threads_may_write_any_part(tmp_path: Path) -> None:
    tensor = torch.arange(40_000.0)
    with ShardWriter(tmp_path, [TensorInfo("a", tensor.dtype, (40_000,))], shard_size=10**6) as writer:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: writer.write_flat("a", i, tensor[i : i + 1000]), range(0, 40_000, 1000)))
        assert writer.close() == {"a": hash_tensor(tensor)}


@pytest.fixture
def writer(tmp_path: Path) -> ShardWriter:
    return ShardWriter(tmp_path, [TensorInfo("a", torch.float32, (2, 5))], shard_size=10**6)


@pytest.mark.parametrize(
    ("done", "start", "count"), [((0, 10), 0, 10), ((0, 5), 4, 6), ((5, 10), 0, 6), ((3, 4), 0, 10), ((2, 8), 3, 2)]
)
def test_overlaps_are_refused(writer: ShardWriter, done: tuple[int, int], start: int, count: int) -> None:
    writer.write_flat("a", done[0], torch.zeros(done[1] - done[0]))
    with pytest.raises(UsageError, match=f"elements {start} to {start + count} of tensor 'a' are written twice"):
        writer.write_flat("a", start, torch.zeros(count))


def test_gaps_are_refused(writer: ShardWriter) -> None:
    writer.write_flat("a", 0, torch.zeros(3))
    writer.write_flat("a", 4, torch.zeros(6))
    with pytest.raises(UsageError, match="1 tensors are not wholly written: 'a' lacks 1 elements"):
        writer.close()


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda w: w.write("b", torch.zeros(2, 5)), "tensor 'b' was not announced"),
        (lambda w: w.write("a", torch.zeros(5, 2)), r"has shape \[5, 2\], announced was \[2, 5\]"),
        (lambda w: w.write("a", torch.zeros(2, 5).half()), "is torch.float16 with 1 dimensions, announced was flat"),
        (lambda w: w.write_flat("a", 0, torch.zeros(2, 5)), "with 2 dimensions"),
        (lambda w: w.write_flat("a", 8, torch.zeros(3)), "elements 8 to 11 of tensor 'a': it has 10"),
    ],
)
def test_what_was_not_announced_is_refused(
    writer: ShardWriter, write: Callable[[ShardWriter], None], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        write(writer)


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    infos = [TensorInfo("a", torch.float32, (2,)), TensorInfo("a", torch.float32, (3,))]
    with pytest.raises(UsageError, match="2 tensors are to be written under 1 names"):
        ShardWriter(tmp_path, infos, shard_size=1)


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        save_tensors(tmp_path / "x.safetensors", TENSORS)
        ShardWriter(tmp_path, INFOS, shard_size=10**9)
    finally:
        os.umask(previous)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(ResourceError, match=r"model\.safetensors: cannot be written: File exists"):
        ShardWriter(tmp_path, INFOS, shard_size=10**9)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_full_disk_shows_before_the_first_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match="No space left on device") as caught:
        ShardWriter(tmp_path, INFOS, shard_size=10**9)
    assert caught.value.hint == "Free some space, or write to another disk."


def test_a_disk_that_fills_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ShardWriter(tmp_path, INFOS, shard_size=10**9) as writer:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match=r"model\.safetensors: cannot be written: No space left"):
            writer.write("a", TENSORS["a"])


def test_file_systems_that_cannot_reserve_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    save_tensors(tmp_path / "x.safetensors", TENSORS)
    assert load_tensors(tmp_path / "x.safetensors")[1] == {"format": "pt"}


# Small files


def test_small_files_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "coefficients.safetensors"
    hashes = save_tensors(path, TENSORS, {"link": "tanh"})
    assert hashes == {name: hash_tensor(tensor) for name, tensor in TENSORS.items()}
    tensors, metadata = load_tensors(path)
    assert metadata == {"link": "tanh"}
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_small_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    (tmp_path / ".state.safetensors.partial").write_text("left by a run that was killed")
    save_tensors(path, {"a": torch.zeros(2)})
    save_tensors(path, {"b": torch.ones(1)})
    assert set(load_tensors(path)[0]) == {"b"}
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_tensors(path, {"c": torch.zeros(1, dtype=torch.complex64)})
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]
    assert set(load_tensors(path)[0]) == {"b"}


@pytest.mark.parametrize("place", ["missing/x.safetensors", "file/x.safetensors"])
def test_small_files_need_a_directory(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"x\.safetensors.*: cannot be written: (No such file|Not a directory)"):
        save_tensors(tmp_path / place, TENSORS)


def test_writing_holds_one_chunk(tmp_path: Path) -> None:
    """A 64 MB file written in 1 MB chunks adds less than 16 MB to the process."""
    chunk, chunks = torch.zeros(1 << 18), 64
    info = TensorInfo("a", torch.float32, (chunks << 18,))
    with ShardWriter(tmp_path, [info], shard_size=10**9) as writer:
        writer.write_flat("a", 0, chunk)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(1, chunks):
            writer.write_flat("a", i << 18, chunk)
        writer.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16_000
