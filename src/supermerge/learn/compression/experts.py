"""The task vectors of all experts, compressed and in memory.

`bf16` rounds every τ. `int8`, `tvq4`, `tvq3` and `tvq2` quantise it (`quantised.py`). `rtvq` shares what experts
have in common:

    b = Q₃(mean θi − θp),   τ̂i = b + Q₂(θi − θp − b)

The offset is taken from b, not from the mean, so that it corrects b's error: 2 + 3/k bits per number and expert.

Source: TVQ and RTVQ, arXiv 2503.06921. Departs from the paper: only learning sees compressed task vectors, the
model is merged from the experts' own files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeGuard, get_args

import torch
from torch import Tensor

from supermerge.checkpoint import Buffer, TensorSource
from supermerge.checkpoint.finite import require_finite
from supermerge.learn.compression.quantised import Quantised, Rounded

Coding = Literal["bf16", "int8", "tvq4", "tvq3", "tvq2", "rtvq"]

_BITS = {"int8": 8, "tvq4": 4, "tvq3": 3, "tvq2": 2}
_SHARED_BITS, _OFFSET_BITS = 3, 2


def is_coding(residency: str) -> TypeGuard[Coding]:
    """Whether this residency is one of the compressed ones."""
    return residency in get_args(Coding)


def bits_per_number(coding: Coding, experts: int) -> float:
    """Bits that one number of one expert's task vector takes."""
    if coding == "rtvq":
        return _OFFSET_BITS + _SHARED_BITS / experts
    return 16 if coding == "bf16" else _BITS[coding]


class Compressed:
    """One expert's task vectors; each is the sum of its parts, of which others may hold the same."""

    def __init__(self, parts: Mapping[str, tuple[Quantised | Rounded, ...]]) -> None:
        self._parts = parts

    @property
    def bytes_read(self) -> int:
        """Nothing is read once it is compressed."""
        return 0

    def write(self, name: str, start: int, stop: int, out: Tensor) -> None:
        """Write elements `start` to `stop` of the flattened τ̂ of tensor `name` into `out`."""
        first, *more = self._parts[name]
        first.write(start, stop, out)
        for part in more:
            addend = torch.empty_like(out)
            part.write(start, stop, addend)
            out.add_(addend)


class Compression:
    """What compressing gave: every expert's vectors, the bytes they hold, and how far they are from the exact ones."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._error = self._norm = 0.0

    @property
    def relative_error(self) -> float:
        """√(Σ ‖τ̂ − τ‖² / Σ ‖τ‖²) over all experts and tensors."""
        return math.sqrt(self._error / self._norm) if self._norm else 0.0

    def hold(self, part: Quantised | Rounded) -> Quantised | Rounded:
        """Count a part in."""
        self.nbytes += part.nbytes
        return part

    def compare(self, found: Tensor, exact: Tensor) -> None:
        """Count the error of one task vector in; `found` is lost."""
        self._norm += float(torch.linalg.vector_norm(exact, dtype=torch.float64)) ** 2
        self._error += float(torch.linalg.vector_norm(found.sub_(exact), dtype=torch.float64)) ** 2


def compress(
    base: TensorSource,
    experts: Mapping[str, TensorSource],
    names: Iterable[str],
    coding: Coding,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Compressed], Compression]:
    """Read the tensors `names` of base and experts, once (twice for `rtvq`), and keep the task vectors compressed.

    `dtype` is the arithmetic's. Beside what is kept, a few copies of one tensor at a time. CheckpointError where the
    base or an expert has NaN or Inf.
    """
    kept: dict[str, dict[str, tuple[Quantised | Rounded, ...]]] = {expert: {} for expert in experts}
    compression = Compression()
    base_buffer, buffer = Buffer(), Buffer()
    for name in names:
        start = _finite(base, name, base_buffer).to(dtype)

        def tau(source: TensorSource, name: str = name, start: Tensor = start) -> Tensor:
            return _finite(source, name, buffer).to(dtype) - start

        shared: tuple[Quantised | Rounded, ...] = ()
        common = torch.zeros_like(start)
        if coding == "rtvq":
            for source in experts.values():
                common += tau(source)
            mean = Quantised(common.div_(len(experts)), _SHARED_BITS)
            mean.write(0, len(common), common)
            shared = (compression.hold(mean),)
        for expert, source in experts.items():
            exact = tau(source)
            parts = (*shared, compression.hold(_coded(exact - common, coding)))
            kept[expert][name] = parts
            found = torch.empty_like(exact)
            Compressed({name: parts}).write(name, 0, len(found), found)
            compression.compare(found, exact)
    return {expert: Compressed(parts) for expert, parts in kept.items()}, compression


def _finite(source: TensorSource, name: str, buffer: Buffer) -> Tensor:
    """A tensor, flat, without NaN or Inf."""
    found = source.read(name, buffer=buffer)
    require_finite(found, name=name, label=source.label)
    return found.reshape(-1)


def _coded(own: Tensor, coding: Coding) -> Quantised | Rounded:
    """What one expert keeps of its τ beside what is shared, `[n]`."""
    if coding == "bf16":
        return Rounded(own)
    return Quantised(own, _OFFSET_BITS if coding == "rtvq" else _BITS[coding])
