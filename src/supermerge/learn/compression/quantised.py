"""A tensor in b bits per number: asymmetric uniform quantisation.

    Δ = (max − min) / (2^b − 1),   z = round(−min / Δ)
    q = clip(round(x / Δ) + z, 0, 2^b − 1),   x̂ = Δ (q − z)

|x̂ − x| is at most Δ/2, and up to Δ at the ends of the range, because z is rounded. Zero stays zero wherever
min ≤ 0 ≤ max. Task vectors have a far smaller range than weights, so Δ is small.

Source: "Task Vector Quantization for Memory-Efficient Model Merging" (TVQ), Kim et al., arXiv 2503.06921. The authors'
quantiser could not be read: that ranges are per tensor follows the paper's text. Where all numbers of a tensor are
equal, Δ would be 0: then Δ is that number itself, and nothing is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.learn.compression.packing import GROUP, pack, packed_bytes, unpack

_BLOCK = 1 << 20
"""Numbers that are quantised at once, in fp64: whole groups."""


class Quantised:
    """A flat tensor x `[n]`, packed; `write` gives any range of x̂."""

    def __init__(self, values: Tensor, bits: int) -> None:
        self.bits = bits
        most = (1 << bits) - 1
        lowest, highest = (float(end) for end in values.aminmax()) if len(values) else (0.0, 0.0)
        self.step = (highest - lowest) / most or lowest or 1.0
        self.zero = round(-lowest / self.step) if highest > lowest else 0
        self._packed = torch.empty(packed_bytes(len(values), bits), dtype=torch.uint8)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK].to(torch.float64)
            codes = block.div_(self.step).round_().add_(self.zero).clamp_(0, most).to(torch.uint8)
            packed = pack(codes, bits)
            first = start // GROUP * bits
            self._packed[first : first + len(packed)] = packed

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._packed.nbytes

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Write x̂[start:stop] into `out` `[stop − start]`, fp32 or fp64."""
        first, last = start // GROUP, -(-stop // GROUP)
        codes = unpack(self._packed[first * self.bits : last * self.bits], self.bits)
        out.copy_(codes[start - first * GROUP :][: stop - start])
        out.sub_(self.zero).mul_(self.step)


class Rounded:
    """A flat tensor in bf16: 8 of fp32's 24 significant bits, its whole range."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.to(torch.bfloat16)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._values.nbytes

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Write elements `start` to `stop` into `out`."""
        out.copy_(self._values[start:stop])
