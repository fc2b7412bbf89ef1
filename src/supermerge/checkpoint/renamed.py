"""Another source seen under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from supermerge.checkpoint.source import Buffer, TensorSource, info_of
from supermerge.checkpoint.view import View


class Renamed(View):
    """A TensorSource that gives the tensors of `source` under new names: `names` maps new name -> stored name."""

    def __init__(self, source: TensorSource, names: Mapping[str, str]) -> None:
        super().__init__(source, {new: replace(info_of(source, old), name=new) for new, old in names.items()})
        self.names: Mapping[str, str] = MappingProxyType(dict(names))

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements start to stop of the flattened tensor, in storage dtype."""
        info_of(self, name)
        return self.source.read_flat(self.names[name], start, stop, buffer=buffer)
