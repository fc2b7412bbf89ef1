"""Task vectors, one at a time: τ(i, j) = θi(j) − θp(j), read from the experts' files into reused buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from supermerge.checkpoint import Buffer, TensorSource


class TaskVectors:
    """The base and the task vectors of k experts, by tensor name; at most one tensor of each is held.

    All sources have the same names and shapes. `dtype` is the arithmetic's: fp32, or fp64 where the model is fp64.
    """

    def __init__(self, base: TensorSource, experts: Mapping[str, TensorSource], dtype: torch.dtype) -> None:
        self.experts = tuple(experts)
        self.dtype = dtype
        self._base = base
        self._sources = tuple(experts.values())
        self._base_buffer, self._expert_buffer = Buffer(), Buffer()
        largest = max((info.numel for info in base.tensors.values() if info.is_floating), default=0)
        self._tau = torch.empty(largest, dtype=dtype)

    def base(self, name: str) -> Tensor:
        """θp(j) in `dtype`, for reading only and until the next call."""
        return self._base.read(name, buffer=self._base_buffer).to(self.dtype)

    def each(self, name: str, base: Tensor) -> Iterator[Tensor]:
        """τ(i, j) for i = 1…k, each the caller's to overwrite until the next is asked for; `base` is `base(name)`."""
        tau = self._tau[: base.numel()].view(base.shape)
        for source in self._sources:
            expert = source.read(name, buffer=self._expert_buffer)
            yield torch.sub(expert.to(self.dtype), base, out=tau)

    @property
    def bytes_read(self) -> tuple[int, int]:
        """Bytes read so far: (of the base, of all experts)."""
        return self._base.bytes_read, sum(source.bytes_read for source in self._sources)
