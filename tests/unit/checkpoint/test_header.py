from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from supermerge.checkpoint import Checkpoint, TensorInfo, load_tensors, save_tensors
from supermerge.checkpoint.header import DTYPES, NAMES, RANK, build_header
from supermerge.errors import CheckpointError

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: bytes | dict[str, Any], data: int = 8) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"\0" * data


def entry(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (F32 | changes).items() if value is not ...}


CORRUPT = {
    "empty file": (b"", "has 0 bytes"),
    "seven bytes": (b"\0" * 7, "has 7 bytes"),
    "header of no bytes": (struct.pack("<Q", 0), "not a JSON object"),
    "header longer than the file": (struct.pack("<Q", 100) + b"{}", "claims a header of 100 bytes"),
    "absurd header length": (struct.pack("<Q", 2**64 - 1) + b"{}", "more than the 100000000"),
    "a web page": (b"<!DOCTYPE html><html></html>", "more than the 100000000"),
    "a zip archive": (b"PK\x03\x04\0\0\0\0" + b"\0" * 90, "claims a header of 67324752 bytes"),
    "not an object": (file_of(b"[1, 2]"), "not a JSON object"),
    "leading space": (file_of(b" {}"), "not a JSON object"),
    "byte order mark": (file_of(b"\xef\xbb\xbf{}"), "not a JSON object"),
    "not JSON": (file_of(b"{nope}"), "not valid JSON"),
    "cut JSON": (file_of(b'{"a": {"dtype"'), "not valid JSON"),
    "two documents": (file_of(b"{} {}"), "not valid JSON"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "not UTF-8 at byte 10"),
    "lone surrogate": (file_of(b'{"\\ud800": 1}'), "not Unicode text"),
    "nested without end": (file_of(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "a number of 10,000 digits": (file_of(b'{"a":' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "not a number": (file_of(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}'), "has NaN"),
    "same name twice": (file_of(b'{"a": 1, "a": 2}'), "has 'a' twice"),
    "same field twice": (file_of(b'{"a": {"dtype": "F32", "dtype": "F16"}}'), "has 'dtype' twice"),
    "metadata not an object": (file_of({"__metadata__": "pt", "a": F32}), "__metadata__"),
    "metadata not of strings": (file_of({"__metadata__": {"n": 1}, "a": F32}), "__metadata__"),
    "tensor not an object": (file_of({"a": 3}), "'a' has a int"),
    "tensor is null": (file_of({"a": None}), "'a' has null"),
    "no dtype": (file_of({"a": entry(dtype=...)}), "'a' has no dtype"),
    "no shape": (file_of({"a": entry(shape=...)}), "'a' has no shape"),
    "no offsets": (file_of({"a": entry(data_offsets=...)}), "'a' has no data_offsets"),
    "unknown dtype": (file_of({"a": entry(dtype="F31")}), "'a' has dtype 'F31'"),
    "dtype not a string": (file_of({"a": entry(dtype=["F32"])}), "'a' has dtype"),
    "complex dtype": (file_of({"a": entry(dtype="C64", shape=[1])}), "'a' has dtype 'C64'"),
    "shape not a list": (file_of({"a": entry(shape=2)}), "'a': shape is 2"),
    "negative size": (file_of({"a": entry(shape=[-2])}), "'a': shape is [-2]"),
    "fractional size": (file_of({"a": entry(shape=[2.0])}), "'a': shape is [2.0]"),
    "boolean size": (file_of({"a": entry(shape=[True, 2])}), "'a': shape is [True, 2]"),
    "size that overflows": (file_of({"a": entry(shape=[2**63])}), "'a': shape is"),
    "product that overflows": (file_of({"a": entry(shape=[2**40, 2**40])}), "shape no tensor can have"),
    "overflow hidden by zero": (
        file_of({"a": entry(shape=[0, 2**62, 4], data_offsets=[0, 0])}, 0),
        "no tensor can have",
    ),
    "too many dimensions": (file_of({"a": entry(shape=[1] * 65, data_offsets=[0, 4])}, 4), "no tensor can have"),
    "offsets not a pair": (file_of({"a": entry(data_offsets=[0, 4, 8])}), "not a begin and a later end"),
    "offsets backwards": (file_of({"a": entry(data_offsets=[8, 0])}), "not a begin and a later end"),
    "negative offset": (file_of({"a": entry(data_offsets=[-8, 0])}), "'a': data_offsets is [-8, 0]"),
    "huge offset": (file_of({"a": entry(data_offsets=[2**64, 2**64 + 8])}), "'a': data_offsets is"),
    "offsets against shape": (file_of({"a": entry(shape=[3])}), "needs 12 bytes"),
    "overlap": (file_of({"a": F32, "b": entry(data_offsets=[4, 12])}, 12), "inside tensor 'a'"),
    "two tensors in one place": (file_of({"a": F32, "b": F32}), "inside tensor 'a'"),
    "hole": (file_of({"a": F32, "b": entry(data_offsets=[16, 24])}, 24), "bytes 8 to 16"),
    "hole at the start": (file_of({"a": entry(data_offsets=[8, 16])}, 16), "between the header and tensor 'a'"),
    "cut short": (file_of({"a": F32}, 7), "cut short: its tensors need 8 bytes and 7"),
    "trailing bytes": (file_of({"a": F32}, 9), "1 bytes after tensor 'a'"),
    "data of no tensor": (file_of({}, 5), "5 bytes after the header"),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_corrupt_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    content, expected = CORRUPT[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    assert expected in caught.value.message
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 600


def test_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: cannot be opened: No such file"):
        load_tensors(tmp_path / "none.safetensors")


def test_every_dtype_has_a_place_in_the_file_order() -> None:
    assert set(RANK) == set(NAMES) == set(DTYPES.values())


def every_dtype() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, (3, 5), generator=draws).to(torch.float32).to(dtype) for name, dtype in DTYPES.items()
    }
    tensors |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(1.5), 'é\x01\n"\\/': torch.randn(2, generator=draws)}
    return tensors


def test_written_bytes_equal_the_library_s(tmp_path: Path) -> None:
    tensors = every_dtype()
    save_tensors(tmp_path / "ours.safetensors", tensors)
    assert (tmp_path / "ours.safetensors").read_bytes() == safetensors.torch.save(tensors, {"format": "pt"})


def test_written_bytes_equal_the_library_s_without_metadata_or_tensors(tmp_path: Path) -> None:
    save_tensors(tmp_path / "ours.safetensors", {}, {})
    assert (tmp_path / "ours.safetensors").read_bytes() == safetensors.torch.save({}, None)


def test_golden_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {"b": torch.tensor([1.0]), "a": torch.tensor([1, 2], dtype=torch.int8)})
    text = (
        b'{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"I8","shape":[2],"data_offsets":[4,6]}}'
    )
    text += b" " * (-len(text) % 8)
    assert (tmp_path / "x.safetensors").read_bytes() == (
        struct.pack("<Q", len(text)) + text + b"\x00\x00\x80\x3f" + b"\x01\x02"
    )


def test_reads_what_the_library_writes(save: Callable[[str, dict[str, Tensor]], Path]) -> None:
    tensors = every_dtype()
    with Checkpoint.open(save("model", tensors)) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        for name, tensor in tensors.items():
            found = checkpoint.read(name)
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header")


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
infos = st.dictionaries(st.text(max_size=8), st.tuples(st.sampled_from(list(NAMES)), shapes), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(infos, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=1))
def test_round_trip(
    directory: Path,
    infos: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: dict[str, str],
) -> None:
    infos.pop("__metadata__", None)
    tensors = {name: torch.ones(shape).to(dtype) for name, (dtype, shape) in infos.items()}
    path = directory / "round.safetensors"
    save_tensors(path, tensors, metadata)
    assert path.read_bytes() == safetensors.torch.save(tensors, metadata or None)
    found, found_metadata = load_tensors(path)
    assert found_metadata == metadata
    assert {name: (t.dtype, tuple(t.shape)) for name, t in found.items()} == infos
    assert all(torch.equal(found[name].float(), tensors[name].float()) for name in tensors)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(directory: Path, content: bytes) -> None:
    path = directory / "any.safetensors"
    path.write_bytes(struct.pack("<Q", max(len(content) - 8, 0)) + content)
    with suppress(CheckpointError):  # anything else fails the test
        load_tensors(path)


def test_a_dtype_without_a_name_cannot_be_written() -> None:
    with pytest.raises(CheckpointError, match=r"dtype torch\.complex64 cannot be written"):
        build_header([TensorInfo("a", torch.complex64, (2,))], {})
