"""Statistics of all experts on disk, handed to methods tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from supermerge.checkpoint import TensorSource, require_finite
from supermerge.errors import CheckpointError
from supermerge.methods import KINDS, Context, Measured, Statistics
from supermerge.statistics.file import MEASURE_AGAIN


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of one expert: tensors by the base's names, their root mean square, and the turned weights' names.

    What is one number of the expert has the kind for its name.
    """

    source: TensorSource
    size: float
    inputs_first: frozenset[str] = frozenset()


class Stored(Measured):
    """`parts[kind]` has one part per expert, in the experts' order. Safe to read from several threads."""

    def __init__(self, parts: Mapping[str, Sequence[Part]]) -> None:
        self._parts = {kind: tuple(experts) for kind, experts in parts.items()}

    def of(self, kinds: Sequence[str], context: Context, shape: Sequence[int]) -> Statistics:
        """A kind that not all experts have for this tensor is left out."""
        values: dict[str, list[Tensor]] = {}
        turned = False
        for kind in kinds:
            experts = self._parts[kind]
            if all(_name(kind, context) in part.source.tensors for part in experts):
                values[kind] = [_read(kind, part.source, context, shape) for part in experts]
                turned = turned or any(context.name in part.inputs_first for part in experts)
        sizes = {kind: [part.size for part in self._parts[kind]] for kind in kinds}
        return Statistics(values, sizes, turned)


def _name(kind: str, context: Context) -> str:
    return kind if KINDS[kind].side == "model" else context.name


def _read(kind: str, source: TensorSource, context: Context, shape: Sequence[int]) -> Tensor:
    if not KINDS[kind].elementwise:
        return read_finite(source, _name(kind, context))
    found = source.read_flat(context.name, context.offset, context.offset + math.prod(shape)).view(*shape)
    require_finite(found, name=context.name, label=source.label, hint=MEASURE_AGAIN)
    if found.numel() and float(found.min()) < 0:  # a mean of squares
        raise CheckpointError(
            f"{source.label}: tensor {context.name!r} has values below 0, the least {float(found.min()):g}; {kind} has "
            "none.",
            hint=MEASURE_AGAIN,
        )
    return found


def read_finite(source: TensorSource, name: str) -> Tensor:
    """A tensor of a file of statistics; CheckpointError where a value in it is no finite number."""
    found = source.read(name)
    require_finite(found, name=name, label=source.label, hint=MEASURE_AGAIN)
    return found
