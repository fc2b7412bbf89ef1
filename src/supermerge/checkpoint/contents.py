"""Comparing tensors by their bytes, reading as little as the answer needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch

from supermerge.checkpoint.hashing import tensor_bytes
from supermerge.checkpoint.source import Buffer, TensorSource

PROBE_ELEMENTS = 1024
CHUNK_ELEMENTS = 1 << 20


def probe(source: TensorSource, name: str, buffer: Buffer) -> bytes:
    """The first bytes of a tensor: two that differ mostly differ here."""
    return bytes(
        tensor_bytes(source.read_flat(name, 0, min(PROBE_ELEMENTS, source.tensors[name].numel), buffer=buffer))
    )


def same_tensor(one: TensorSource, one_name: str, other: TensorSource, other_name: str) -> bool:
    """Whether two tensors have the same dtype, shape and bytes."""
    first, second = one.tensors[one_name], other.tensors[other_name]
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    here, there = Buffer(), Buffer()
    for start in range(0, first.numel, CHUNK_ELEMENTS):
        stop = min(start + CHUNK_ELEMENTS, first.numel)
        a = tensor_bytes(one.read_flat(one_name, start, stop, buffer=here))
        if a != tensor_bytes(other.read_flat(other_name, start, stop, buffer=there)):
            return False
    return True


def same_tensors(one: TensorSource, other: TensorSource, names: Iterable[str]) -> bool:
    """Whether two sources hold the same bytes under each of `names`: a probe of all first, which mostly settles it."""
    names, here, there = list(names), Buffer(), Buffer()
    if any(one.tensors[name] != other.tensors[name] for name in names):
        return False
    if any(probe(one, name, here) != probe(other, name, there) for name in names):
        return False
    return all(same_tensor(one, name, other, name) for name in names)


def is_constant(source: TensorSource, name: str) -> bool:
    """Whether all elements are alike, as in fresh biases and norms: then equal bytes do not mean one shared tensor."""
    info, buffer, first = source.tensors[name], Buffer(), b""
    for start in range(0, info.numel, CHUNK_ELEMENTS):
        chunk = source.read_flat(name, start, min(start + CHUNK_ELEMENTS, info.numel), buffer=buffer)
        raw = chunk.view(torch.uint8).view(-1, info.dtype.itemsize)
        first = first or bytes(tensor_bytes(raw[0]))
        if not bool((raw == torch.frombuffer(bytearray(first), dtype=torch.uint8)).all()):
            return False
    return True


def shared_with(source: TensorSource, name: str, others: Iterable[str]) -> str | None:
    """The first of `others` in the same source that holds the same values as `name`, unless those are constant."""
    info, buffer = source.tensors[name], Buffer()
    own: bytes | None = None
    for other in others:
        candidate = source.tensors[other]
        if other == name or (candidate.dtype, candidate.shape) != (info.dtype, info.shape):
            continue
        own = probe(source, name, buffer) if own is None else own
        if probe(source, other, buffer) == own and same_tensor(source, name, source, other):
            return None if is_constant(source, name) else other
    return None


def tied_names(base: TensorSource, experts: Mapping[str, TensorSource], names: Iterable[str]) -> dict[str, str]:
    """Alias -> first name, for tensors that are one and the same in the base and in every expert."""
    groups: defaultdict[tuple[torch.dtype, tuple[int, ...], bytes], list[str]] = defaultdict(list)
    buffer = Buffer()
    for name in names:
        info = base.tensors[name]
        groups[info.dtype, info.shape, probe(base, name, buffer)].append(name)
    tied: dict[str, str] = {}
    for first, *aliases in groups.values():
        if not aliases or is_constant(base, first):
            continue
        for alias in aliases:
            if all(same_tensor(source, alias, source, first) for source in (base, *experts.values())):
                tied[alias] = first
    return tied
