"""The safetensors header: read as if an enemy had written it, written byte for byte as the format's library does.

A file is 8 bytes of little-endian header length n, n bytes of JSON, then the tensors' bytes. The JSON maps each name to
{dtype, shape, data_offsets}, plus an optional `__metadata__` of strings. Source: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from supermerge.checkpoint.source import TensorInfo
from supermerge.errors import CheckpointError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
# The library's order of dtypes within a file: widest alignment first, then as its enumeration lists them.
RANK: dict[torch.dtype, int] = {
    dtype: rank
    for rank, dtype in enumerate(
        (
            torch.uint64,
            torch.int64,
            torch.float64,
            torch.float32,
            torch.uint32,
            torch.int32,
            torch.bfloat16,
            torch.float16,
            torch.uint16,
            torch.int16,
            torch.float8_e5m2fnuz,
            torch.float8_e4m3fnuz,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
            torch.int8,
            torch.uint8,
            torch.bool,
        )
    )
}
MAX_HEADER_BYTES = 100_000_000  # the library's own limit
MAX_DIMENSIONS = 64  # more than any torch kernel takes
MAX_NAME = 1024  # characters: matching names takes time in the square of their length


@dataclass(frozen=True, slots=True)
class Header:
    """Where every tensor of one file lies: `offsets[name]` is its first byte, counted from the start of the file."""

    tensors: dict[str, TensorInfo]
    offsets: dict[str, int]
    metadata: dict[str, str]
    nbytes: int  # of the whole file


class Refused(Exception):
    """What is wrong with a header; `read_header` adds the file's name."""


def read_header(descriptor: int, path: str | os.PathLike[str]) -> Header:
    """The header of an open safetensors file. Raises CheckpointError naming the file and what is wrong with it."""
    size = os.fstat(descriptor).st_size
    try:
        if size < 8:
            raise Refused(f"the file has {size} bytes, and a safetensors file has at least 8")
        length = int.from_bytes(_pread(descriptor, 8, 0), "little")
        if length > MAX_HEADER_BYTES:
            raise Refused(f"it claims a header of {length} bytes, more than the {MAX_HEADER_BYTES} the format allows")
        if 8 + length > size:
            raise Refused(f"it claims a header of {length} bytes, but the file has {size}")
        return parse_header(_pread(descriptor, length, 8), size)
    except Refused as problem:
        raise CheckpointError(
            f"{os.fspath(path)}: not a whole safetensors file: {problem}",
            hint="Copy or download the file again, and compare its hash with the one published.",
        ) from problem


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    try:
        data = os.pread(descriptor, count, offset)
    except OSError as error:
        raise Refused(f"it cannot be read: {error.strerror}") from error
    if len(data) != count:
        raise Refused(f"it ended after {offset + len(data)} bytes while being read")
    return data


def parse_header(raw: bytes, file_size: int) -> Header:
    """Check the JSON part of a file of `file_size` bytes and say where its tensors lie. Raises Refused."""
    document = _parse_json(raw)
    metadata = _metadata(document.pop("__metadata__", None))
    data_start = 8 + len(raw)
    entries = {name: _entry(name, value) for name, value in document.items()}
    ordered = sorted(entries.items(), key=lambda item: (item[1][1], item[1][2]))
    position, previous = 0, "the header"
    for name, (_, begin, end) in ordered:
        if begin < position:
            raise Refused(f"tensor {name!r} begins at byte {begin}, inside {previous}, which ends at {position}")
        if begin > position:
            raise Refused(f"bytes {position} to {begin}, between {previous} and tensor {name!r}, belong to no tensor")
        position, previous = end, f"tensor {name!r}"
    found = file_size - data_start
    if position > found:
        raise Refused(f"it is cut short: its tensors need {position} bytes and {found} are there")
    if position < found:
        raise Refused(f"{found - position} bytes after {previous} belong to no tensor")
    return Header(
        tensors={name: info for name, (info, _, _) in ordered},
        offsets={name: data_start + begin for name, (_, begin, _) in ordered},
        metadata=metadata,
        nbytes=file_size,
    )


def _parse_json(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise Refused("its header is not a JSON object")
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Refused(f"its header is not UTF-8 at byte {8 + error.start}") from error
    except RecursionError as error:
        raise Refused("its header is nested too deeply") from error
    except ValueError as error:
        raise Refused(f"its header is not valid JSON: {error}") from error
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Refused(f"its header has {key!r} twice")
        if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
            raise Refused(f"its header has a name that is not Unicode text: {key!a}")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise Refused(f"its header has {text} where a whole number belongs")


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Refused("its __metadata__ is not an object of strings")
    return value


def _entry(name: str, value: Any) -> tuple[TensorInfo, int, int]:
    if len(name) > MAX_NAME:
        raise Refused(f"a tensor's name has {len(name)} characters, more than {MAX_NAME}: {name!r:.80}")
    if not isinstance(value, dict):
        raise Refused(f"tensor {name!r} has {_kind(value)} instead of dtype, shape and data_offsets")
    for field in ("dtype", "shape", "data_offsets"):
        if field not in value:
            raise Refused(f"tensor {name!r} has no {field}")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise Refused(f"tensor {name!r} has dtype {value['dtype']!r:.40}; known are {', '.join(DTYPES)}")
    shape = _whole_numbers(value["shape"], f"tensor {name!r}: shape")
    if len(shape) > MAX_DIMENSIONS or math.prod(max(size, 1) for size in shape) >= 2**63 // dtype.itemsize:
        raise Refused(f"tensor {name!r} has a shape no tensor can have: {shape!s:.80}")
    offsets = _whole_numbers(value["data_offsets"], f"tensor {name!r}: data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Refused(f"tensor {name!r} has data_offsets {offsets!s:.80}, not a begin and a later end")
    info = TensorInfo(name, dtype, tuple(shape))
    begin, end = offsets
    if end - begin != info.nbytes:
        raise Refused(
            f"tensor {name!r} of dtype {value['dtype']} and shape {shape} needs {info.nbytes} bytes "
            f"and has data_offsets {offsets}, {end - begin} bytes"
        )
    return info, begin, end


def _whole_numbers(value: Any, what: str) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 2**63 for item in value):
        raise Refused(f"{what} is {value!r:.80}, not a list of whole numbers from 0")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def build_header(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """The first bytes of a file that holds `infos`, padded to 8 bytes, and where each tensor goes.

    Tensors lie widest dtype first, then by name, as the format's library writes them.
    """
    ordered = in_file_order(list(infos))
    document: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position, relative = 0, {}
    for info in ordered:
        end = position + info.nbytes
        document[info.name] = {"dtype": NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [position, end]}
        relative[info.name] = position
        position = end
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    offsets = {name: start + offset for name, offset in relative.items()}
    header = Header({info.name: info for info in ordered}, offsets, dict(metadata), start + position)
    return len(text).to_bytes(8, "little") + text, header


def in_file_order(infos: Sequence[TensorInfo]) -> list[TensorInfo]:
    """Tensors in the order in which they lie in a file."""
    unknown = sorted({str(info.dtype) for info in infos if info.dtype not in NAMES})
    if unknown:
        raise CheckpointError(
            f"dtype {', '.join(unknown)} cannot be written to a safetensors file",
            hint=f"Cast to one of {', '.join(str(dtype) for dtype in NAMES)}.",
        )
    return sorted(infos, key=lambda info: (RANK[info.dtype], info.name.encode("utf-8")))
