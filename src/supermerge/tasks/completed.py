"""A checkpoint completed by the base: what no expert has (a text tower, a pooler) stays as the base has it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from supermerge.checkpoint import Buffer, TensorInfo, TensorSource
from supermerge.errors import CheckpointError
from supermerge.tasks.binding import Binding

# Beyond this share of the model's elements, it is another architecture; the rule of `checkpoint.match`.
_LARGEST_PART = 0.5


class Completed:
    """A TensorSource that gives the tensors of `source`, and those in `lacking` from `base`."""

    def __init__(self, source: TensorSource, base: TensorSource, lacking: frozenset[str]) -> None:
        self.label = source.label
        self._source = source
        self._base = base
        self._lacking = lacking
        self._base_bytes = 0
        infos = {name: base.tensors[name] for name in base.tensors if name in lacking}
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType({**source.tensors, **infos})

    @property
    def bytes_read(self) -> int:
        """Bytes given so far, those of the base included."""
        return self._source.bytes_read + self._base_bytes

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """The tensor, or a range of its first dimension, in storage dtype."""
        if name not in self._lacking:
            return self._source.read(name, rows, buffer=buffer)
        return self._counted(self._base.read(name, rows, buffer=buffer))

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        if name not in self._lacking:
            return self._source.read_flat(name, start, stop, buffer=buffer)
        return self._counted(self._base.read_flat(name, start, stop, buffer=buffer))

    def _counted(self, tensor: Tensor) -> Tensor:
        self._base_bytes += tensor.nbytes
        return tensor


def completed(source: TensorSource, base: TensorSource, binding: Binding) -> TensorSource:
    """`source` itself where it has all that `binding` needs, else completed by the base.

    Raises CheckpointError where more than half of the model's elements would come from the base.
    """
    has = set(source.tensors)
    for pair in binding.doubles:
        # One name of a tied tensor is enough.
        if has.intersection(pair):
            has.update(pair)
    lacking = frozenset(name for name in binding.file_names if name not in has)
    if not lacking:
        return source
    total = sum(base.tensors[name].numel for name in binding.file_names)
    if sum(base.tensors[name].numel for name in lacking) > _LARGEST_PART * total:
        raise CheckpointError(
            f"{source.label} lacks {len(lacking)} of the {len(binding.file_names)} tensors of "
            f"{type(binding.model).__name__} that the base ({base.label}) has, such as {min(lacking)}.",
            hint="It is of another architecture than the base, or its tensors have other names.",
        )
    return Completed(source, base, lacking)
