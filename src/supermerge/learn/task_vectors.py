"""Task vectors, one at a time: τ(i, j) = θi(j) − θp(j), read from the experts' files into reused buffers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from supermerge.checkpoint import Buffer, TensorSource
from supermerge.learn.compression import Compressed

_BLOCK = 1 << 20
"""Elements handled at once: a few arrays of so many fit into a processor's last cache, and the calls cost nothing."""


def row_blocks(shape: Sequence[int], elements: int = _BLOCK) -> Iterator[slice]:
    """The rows of a tensor (its first dimension; a scalar has one) in ranges of at most `elements`, at least a row."""
    rows, width = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
    step = max(1, elements // max(width, 1))
    for start in range(0, max(rows, 1), step):
        yield slice(start, min(start + step, rows))


class TaskVectors:
    """The base and the task vectors of k experts, by tensor name; at most one tensor of each is held.

    All sources have the same names and shapes; an expert may also be its compressed task vectors. `dtype` is the
    arithmetic's: fp32, or fp64 where the model is fp64.
    """

    def __init__(
        self, base: TensorSource, experts: Mapping[str, TensorSource | Compressed], dtype: torch.dtype
    ) -> None:
        self.experts = tuple(experts)
        self.dtype = dtype
        self._base = base
        self._sources = tuple(experts.values())
        self._base_buffer = Buffer()
        largest = max((info.numel for info in base.tensors.values() if info.is_floating), default=0)
        self._tau = torch.empty(max(largest, _BLOCK), dtype=dtype)

    def base(self, name: str, rows: slice | None = None) -> Tensor:
        """θp(j), or some of its rows, in `dtype`, for reading only and until the next call."""
        return self._base.read(name, rows, buffer=self._base_buffer).to(self.dtype)

    def each(self, name: str, base: Tensor) -> Iterator[Tensor]:
        """τ(i, j) for i = 1…k, each the caller's to overwrite until the next is asked for; `base` is `base(name)`."""
        tau = self._tau[: base.numel()].view(base.shape)
        for source in self._sources:
            for _ in self._fill(tau, source, name, base):
                pass
            yield tau

    def reduced(
        self, name: str, base: Tensor, gradient: Tensor, *, by_row: bool
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Every τ(i, j) with its ⟨gradient, τ(i, j)⟩, as many experts at once as fit into a block, at least one.

        Gives (which experts, their task vectors `[n, *shape]`, the products `[n]` or, `by_row`, `[n, rows]`); the task
        vectors are the caller's to overwrite until the next are asked for. Each block is reduced while it lies in the
        cache; the products of a tensor's blocks are added in fp64.
        """
        together = max(1, min(len(self._sources), _BLOCK // max(base.numel(), 1)))
        g = torch.atleast_1d(gradient)
        for first in range(0, len(self._sources), together):
            sources = self._sources[first : first + together]
            taus = self._tau[: len(sources) * base.numel()].view(len(sources), *base.shape)
            products: list[Tensor] = []
            for tau, source in zip(taus, sources, strict=True):
                t = torch.atleast_1d(tau)
                parts = [_inner(g[rows], t[rows], by_row) for rows in self._fill(tau, source, name, base)]
                products.append(_joined(parts, by_row))
            yield slice(first, first + len(sources)), taus, torch.stack(products)

    def products(self, name: str, gradient: Tensor, *, by_row: bool) -> Tensor:
        """⟨gradient, τ(i, j)⟩ of all experts: `[k]` or, `by_row`, `[k, rows]`."""
        return torch.cat([dc for _, _, dc in self.reduced(name, self.base(name), gradient, by_row=by_row)])

    def _fill(self, tau: Tensor, source: TensorSource | Compressed, name: str, base: Tensor) -> Iterator[slice]:
        """Write one expert's task vector into `tau`; gives the rows of every block as soon as they are there."""
        t, b = torch.atleast_1d(tau), torch.atleast_1d(base)
        width = math.prod(b.shape[1:])
        for rows in row_blocks(b.shape):
            if isinstance(source, Compressed):
                source.write(name, rows.start * width, rows.stop * width, t[rows].reshape(-1))
                yield rows
                continue
            # Read where the task vector goes: subtracting in place saves a journey to memory.
            there = Buffer(memoryview(t[rows].numpy()).cast("B")) if t.numel() else None
            expert = source.read_flat(name, rows.start * width, rows.stop * width, buffer=there)
            torch.sub(expert.to(self.dtype).view(b[rows].shape), b[rows], out=t[rows])
            yield rows

    @property
    def bytes_read(self) -> tuple[int, int]:
        """Bytes read so far: (of the base, of all experts)."""
        return self._base.bytes_read, sum(source.bytes_read for source in self._sources)


def _inner(gradient: Tensor, tau: Tensor, by_row: bool) -> Tensor:
    """⟨gradient, τ⟩ of some rows, as a scalar or as `[rows]`."""
    on_device = tau.to(gradient.device)
    if by_row:
        shape = len(tau), math.prod(tau.shape[1:])
        return torch.linalg.vecdot(gradient.reshape(shape), on_device.reshape(shape))
    return torch.dot(gradient.reshape(-1), on_device.reshape(-1))


def _joined(parts: list[Tensor], by_row: bool) -> Tensor:
    """The products of a tensor's blocks as those of the tensor."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts) if by_row else torch.stack(parts).sum(dtype=torch.float64).to(parts[0].dtype)
