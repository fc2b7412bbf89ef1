"""Keeps the parameters of a model in a file, and each in memory only while an operation uses it.

A parameter stays what it is (one object, with its shape, and shared wherever it was shared), but its storage is empty.
While an `Offload` is entered,

- every call of PyTorch is looked at before it runs: the parameters among its inputs, and views of them, get their
  storages filled, and lose them when another call needs others. Weights are known by their storages, whatever modules
  they belong to, so that tied weights, functional code and heads that share a backbone need no care;
- what autograd keeps of a parameter for the backward pass is a note where its values lie; they are read again when
  the backward pass asks for them, and let go after that step of it.

So a pass holds the largest parameters of one operation, whatever the size of the model. The values are the same bits as
in memory. A gradient that has to wait for others (several batches in one step) can wait in the file too.

Not for compiled models, nor for reentrant activation checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from supermerge.errors import SupermergeError
from supermerge.offload.asking import asks_about
from supermerge.offload.scratch import Scratch
from supermerge.resources import give_back_large_blocks

_MARK = "_supermerge_offload"


@dataclass(slots=True)
class _Place:
    """Where a parameter lies; `written` counts how often it changed."""

    parameter: Tensor
    storage: torch.UntypedStorage
    """Held, so that it stays one Python object, and no other has its id."""
    offset: int
    written: int = 0
    gradient: int | None = None
    """Where a waiting gradient lies, once one had to wait."""
    waits: bool = False


@dataclass(frozen=True, slots=True)
class _Note:
    """What autograd keeps in the place of a parameter, or of a view of one."""

    place: _Place
    written: int
    size: torch.Size
    stride: tuple[int, ...]
    start: int


class Offload(TorchFunctionMode):
    """The parameters of one model, in a scratch file in `directory`. Enter it to compute with them."""

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__()
        give_back_large_blocks()
        self.scratch = Scratch(directory)
        self._places: dict[int, _Place] = {}
        self._filled: dict[int, _Place] = {}
        self._hooks = saved_tensors_hooks(self._pack, self._unpack)

    def take(self, parameter: Tensor, *, empty: bool = False) -> None:
        """Move a parameter's values into the file, or with `empty` only make room for values to come."""
        if parameter.device.type != "cpu" or not parameter.is_contiguous():
            raise SupermergeError("Only contiguous parameters on the CPU can be offloaded.")
        key = _key(parameter)
        if key in self._places:
            return
        place = self._places[key] = _Place(
            parameter, parameter.untyped_storage(), self.scratch.reserve(parameter.nbytes)
        )
        setattr(parameter, _MARK, self)
        if not empty:
            self.scratch.write(place.offset, parameter)
        place.storage.resize_(0)

    def store(self, parameter: Tensor, values: Tensor, start: int = 0) -> None:
        """Overwrite a parameter, or what comes after its first `start` elements, with `values`, cast to its dtype."""
        place = self._places[_key(parameter)]
        self._empty(place)
        cast = values.detach().to(parameter.dtype).contiguous()
        self.scratch.write(place.offset + start * parameter.dtype.itemsize, cast)
        place.written += 1

    def fetch(self, parameter: Tensor) -> Tensor:
        """A copy of a parameter's values, in memory."""
        return self._read(self._places[_key(parameter)])

    def put_aside(self, parameter: Tensor) -> None:
        """Let a parameter's gradient wait in the file; what waited there is added to it, in the order of arrival."""
        place = self._places[_key(parameter)]
        gradient = self.gathered(parameter)
        if gradient is None:
            return
        if place.gradient is None:
            place.gradient = self.scratch.reserve(gradient.nbytes)
        self.scratch.write(place.gradient, gradient.contiguous())
        place.waits = True

    def gathered(self, parameter: Tensor) -> Tensor | None:
        """A parameter's gradient with what waited for it in the file; the parameter has none any more."""
        place = self._places[_key(parameter)]
        gradient, parameter.grad = parameter.grad, None
        if not place.waits or place.gradient is None:
            return gradient
        place.waits = False
        waited = torch.empty(parameter.shape, dtype=parameter.dtype)
        self.scratch.read(place.gradient, waited)
        return waited if gradient is None else waited.add_(gradient)

    def forget_gradients(self) -> None:
        """Drop every gradient that waits."""
        for place in self._places.values():
            place.waits = False

    def bring_back(self) -> None:
        """Make the parameters ordinary ones again, in memory, and give the file up."""
        for place in self._places.values():
            self._fill(place)
            delattr(place.parameter, _MARK)
        self._places.clear()
        self._filled.clear()
        self.scratch.close()

    def __enter__(self) -> Self:
        super().__enter__()
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)
        super().__exit__(*exception)
        self._keep_only({})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if not asks_about(func):
            used = dict(self._used((*args, *named.values())))
            if used:
                self._keep_only(used)
                for place in used.values():
                    self._fill(place)
        return func(*args, **named)

    def _used(self, values: Iterable[Any]) -> Iterator[tuple[int, _Place]]:
        for value in values:
            if isinstance(value, Tensor):
                key = _key(value)
                if key in self._places:
                    yield key, self._places[key]
            elif isinstance(value, (tuple, list)):
                yield from self._used(value)

    def _keep_only(self, used: dict[int, _Place]) -> None:
        for key, place in list(self._filled.items()):
            if key not in used:
                self._empty(place)

    def _fill(self, place: _Place) -> None:
        like, storage = place.parameter, place.storage
        if storage.nbytes():
            return
        storage.resize_(like.nbytes)
        # Through another tensor on the same storage, so that autograd does not see a change.
        there = torch.empty(0, dtype=like.dtype).set_(storage, 0, like.shape, like.stride())
        self.scratch.read(place.offset, there)
        self._filled[id(storage)] = place

    def _empty(self, place: _Place) -> None:
        place.storage.resize_(0)
        self._filled.pop(id(place.storage), None)

    def _read(self, place: _Place) -> Tensor:
        values = torch.empty(place.parameter.shape, dtype=place.parameter.dtype)
        self.scratch.read(place.offset, values)
        return values

    def _pack(self, tensor: Tensor) -> Tensor | _Note:
        place = self._places.get(_key(tensor))
        if place is None:
            return tensor
        return _Note(place, place.written, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _unpack(self, kept: Tensor | _Note) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if kept.written != kept.place.written:
            raise SupermergeError("A weight was overwritten before the backward pass that needs it was over.")
        return self._read(kept.place).as_strided(kept.size, kept.stride, kept.start)


def offload_of(parameter: Tensor) -> Offload | None:
    """What keeps this parameter in a file, if anything does."""
    return getattr(parameter, _MARK, None)


def values_of(tensor: Tensor) -> Tensor:
    """A tensor's values, wherever they lie: its own memory, or a copy."""
    offload = offload_of(tensor)
    return tensor.detach() if offload is None else offload.fetch(tensor)


def write_rows(tensor: Tensor, rows: slice, values: Tensor) -> None:
    """Overwrite a range of a tensor's first dimension (all of a scalar), wherever it lies."""
    offload = offload_of(tensor)
    if offload is None:
        tensor[rows if tensor.dim() else ...] = values.to(tensor.dtype)
    else:
        offload.store(tensor, values, rows.start * (tensor.numel() // tensor.shape[0]) if tensor.dim() else 0)


@contextmanager
def offloaded(model: nn.Module, directory: Path | None = None) -> Iterator[None]:
    """A model whose parameters are in a file inside the block, and in memory after it; one that has them there, keeps
    them there."""
    parameters = list(model.parameters())
    if any(offload_of(parameter) is not None for parameter in parameters):
        yield
        return
    offload = Offload(directory)
    for parameter in parameters:
        offload.take(parameter)
    try:
        with offload:
            yield
    finally:
        offload.bring_back()


def _key(tensor: Tensor) -> int:
    """What tells one storage from all others that are alive."""
    return id(tensor.untyped_storage())


@contextmanager
def computing(offload: Offload) -> Iterator[Offload]:
    """Compute with what `offload` holds; its file is given up at the end, and its parameters are empty then."""
    try:
        with offload:
            yield offload
    finally:
        offload.scratch.close()
