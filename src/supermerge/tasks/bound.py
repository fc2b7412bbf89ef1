"""A checkpoint seen under the tensor names of a transformers model; fused tensors are fused as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from supermerge.checkpoint import Buffer, Renamed, TensorInfo, TensorSource
from supermerge.errors import CheckpointError
from supermerge.tasks.binding import Binding, Made, Origin


class Bound:
    """A TensorSource keyed by `model.state_dict()` names (aliases of tied tensors included), reading `source` lazily.

    `source` has the file names that `binding` was made for: the base itself, or an expert seen under the base's names.
    Where the file lacks a double of a tied tensor, the original is enough. Raises CheckpointError for a tensor that is
    missing, has another shape than the model's, or differs from the double that the base ties it to.
    """

    def __init__(self, binding: Binding, source: TensorSource) -> None:
        self.label = source.label
        self._binding = binding
        self._source = source
        self._names = self._stored_names()
        self._last: tuple[str, Tensor] | None = None
        lacking = [name for how in binding.made.values() for name in how.route.sources if name not in self._names]
        if lacking:
            raise CheckpointError(
                f"{self.label} lacks {len(lacking)} tensor(s) of {type(binding.model).__name__}, such as {lacking[0]}.",
                hint="The checkpoint is of another architecture than the base.",
            )
        self.tensors: Mapping[str, TensorInfo] = {name: self._info(name, how) for name, how in binding.made.items()}
        self._require_shapes()
        self._require_ties()

    @property
    def bytes_read(self) -> int:
        """Bytes read from the file so far."""
        return self._source.bytes_read

    @property
    def stored(self) -> Renamed:
        """The source under the same names, without the tensors that are fused as they are read."""
        plain = {name: how.route.sources[0] for name, how in self._binding.made.items() if how.route.converter is None}
        return Renamed(self._source, {name: self._names[file] for name, file in plain.items()})

    def origin(self, name: str) -> Origin:
        """What tensor `name` is made of; the same for the aliases of a tied tensor."""
        return self._binding.made[name].origin

    def read(self, name: str, rows: slice | None = None, *, buffer: Buffer | None = None) -> Tensor:
        """Tensor `name` in storage dtype, or some rows of it. A fused tensor does not use `buffer`."""
        how = self._binding.made[name]
        if how.route.converter is None:
            return self._source.read(self._names[how.route.sources[0]], rows, buffer=buffer)
        whole = self._fused(how)
        return whole if rows is None else whole[rows]

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> Tensor:
        """Elements `start` to `stop` of the flattened tensor `name`."""
        how = self._binding.made[name]
        if how.route.converter is None:
            return self._source.read_flat(self._names[how.route.sources[0]], start, stop, buffer=buffer)
        # Whoever reads it block by block gets it fused once; with its last block it is let go.
        name_and_tensor = self._last if self._last and self._last[0] == name else (name, self._fused(how).reshape(-1))
        self._last = None if stop == self.tensors[name].numel else name_and_tensor
        return name_and_tensor[1][start:stop]

    def _fused(self, how: Made) -> Tensor:
        parts = [self._source.read(self._names[name]) for name in how.route.sources]
        return how.route.convert(self._binding.model, parts)[how.name]

    def _stored_names(self) -> dict[str, str]:
        """File name of the binding -> the name to read in this source: a tied tensor may be stored under its double."""
        names = {name: name for name in self._binding.file_names if name in self._source.tensors}
        for double, original in self._binding.doubles:
            if original not in names and double in names:
                names[original] = double
        return names

    def _info(self, name: str, how: Made) -> TensorInfo:
        infos = [self._source.tensors[self._names[source]] for source in how.route.sources]
        if how.route.converter is None:
            return replace(infos[0], name=name)
        empty = [torch.empty(info.shape, dtype=info.dtype, device="meta") for info in infos]
        made = how.route.convert(self._binding.model, empty)[how.name]
        return TensorInfo(name, made.dtype, tuple(made.shape))

    def _require_shapes(self) -> None:
        for name, tensor in self._binding.model.state_dict(keep_vars=True).items():
            info = self.tensors.get(name)
            if info is not None and tuple(info.shape) != tuple(tensor.shape):
                files = ", ".join(self._binding.files(name)[:3])
                raise CheckpointError(
                    f"{self.label}: tensor {files} has shape {list(info.shape)}; the config of "
                    f"{type(self._binding.model).__name__} asks for {list(tensor.shape)} ({name}).",
                    hint="The config and the weights belong to different models.",
                )

    def _require_ties(self) -> None:
        stored = self._source.tensors
        both = [pair for pair in self._binding.doubles if all(name in stored for name in pair)]
        for double, original in both:
            if not torch.equal(self._source.read(original), self._source.read(double)):
                raise CheckpointError(
                    f"{self.label}: {double} and {original} differ, but the base ties them.",
                    hint="An expert whose output layer was untied cannot be merged with a tied base.",
                )
