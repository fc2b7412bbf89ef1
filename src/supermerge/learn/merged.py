"""The merged tensors of a model: written from the base, the task vectors and their coefficients, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from supermerge.errors import CheckpointError
from supermerge.learn.task_vectors import TaskVectors, row_blocks
from supermerge.methods.transforms import accumulate
from supermerge.offload import offload_of, write_rows


class Merged:
    """Writes θm(j) = θp(j) + Σᵢ c(i, j) τ(i, j) into a model's tensors, in the arithmetic's dtype and expert by expert.

    Writing is split into `begin`, `add` and `end`, so that the engine can step a coefficient between two experts.
    """

    def __init__(self, tensors: Mapping[str, Tensor], vectors: TaskVectors) -> None:
        self._tensors = tensors
        self._vectors = vectors

    def begin(self, name: str, base: Tensor) -> Tensor:
        """θp(j) to accumulate on: the model's own tensor wherever it has the arithmetic's dtype."""
        tensor = self._tensors[name]
        if not self._in_place(tensor):
            return base.to(tensor.device, copy=True)
        with torch.no_grad():
            # In place and counted by autograd: a backward pass that still needs the old value fails loudly.
            return tensor.copy_(base).detach()

    @staticmethod
    def add(merged: Tensor, tau: Tensor, c: Tensor) -> None:
        """merged += c · τ in place; `c` is a scalar, or `[rows]`. What `tau` held is lost."""
        m, t = torch.atleast_1d(merged), torch.atleast_1d(tau)
        for rows in row_blocks(m.shape):
            block = t[rows].to(m.device)
            accumulate(m[rows], block, c[rows] if c.ndim else c, scratch=block)

    def end(self, name: str, merged: Tensor) -> None:
        """Cast what was accumulated into the model's tensor, where it is not that tensor already."""
        tensor = self._tensors[name]
        offload = offload_of(tensor)
        if offload is not None:
            offload.store(tensor, merged)
        elif not self._in_place(tensor):
            with torch.no_grad():
                tensor.copy_(merged)

    def _in_place(self, tensor: Tensor) -> bool:
        return tensor.dtype == self._vectors.dtype and offload_of(tensor) is None

    def write(self, name: str, c: Tensor) -> None:
        """Write tensor j with the coefficients `c` (`[k]` or `[k, rows]`)."""
        base = self._vectors.base(name)
        merged = self.begin(name, base)
        for i, tau in enumerate(self._vectors.each(name, base)):
            self.add(merged, tau, c[i])
        self.end(name, merged)

    def write_base(self, name: str) -> None:
        """Write θp(j) itself, a block of rows at a time; a NaN or Inf in it is a CheckpointError."""
        tensor = self._tensors[name]
        with torch.no_grad():
            for rows in row_blocks(tensor.shape):
                base = self._vectors.base(name, rows if tensor.dim() else None)
                require_finite(name, "the base", base)
                write_rows(tensor, rows, base)

    def check(self, name: str) -> bool:
        """Whether any expert changed tensor j; a NaN or Inf in it is a CheckpointError that names tensor and source."""
        base = self._vectors.base(name)
        require_finite(name, "the base", base)
        changed = False
        for expert, tau in zip(self._vectors.experts, self._vectors.each(name, base), strict=True):
            require_finite(name, f"expert {expert}", tau)
            changed = changed or bool(tau.any())
        return changed


def require_finite(name: str, label: str, tensor: Tensor) -> None:
    """CheckpointError where tensor `name` of `label` holds NaN or Inf."""
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"{name}: NaN or Inf in {label}.",
            hint="The checkpoint is damaged or its training diverged: replace it.",
        )
