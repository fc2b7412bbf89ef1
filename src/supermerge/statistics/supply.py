"""Methods and their statistics: whatever some methods need of the experts, measured or found, and given to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch

from supermerge.checkpoint import Checkpoint
from supermerge.errors import DataError
from supermerge.methods import KINDS, Bound
from supermerge.methods.sens_merging import layer_shares
from supermerge.statistics.alignment import distances
from supermerge.statistics.file import About, require_intact, require_shapes
from supermerge.statistics.measure import Setup
from supermerge.statistics.stored import Part, Stored, read_finite


def supplied(bounds: Sequence[Bound], setup: Setup, files: ExitStack) -> list[Bound]:
    """`bounds`, in order, those that need statistics with them, from files that `files` closes.

    What is missing is measured and kept. Errors: as `Setup.file`.
    """
    kinds = dict.fromkeys(kind for bound in bounds if bound.measured is None for kind in bound.kinds)
    found = {kind: parts(kind, setup, files) for kind in kinds if not KINDS[kind].of_merge}
    complete: list[Bound] = []
    for bound in bounds:
        if not bound.kinds or bound.measured is not None:
            complete.append(bound)
            continue
        own: dict[str, list[Part]] = {}
        for kind in (each for each in bound.kinds if KINDS[each].of_merge):
            from supermerge.statistics.growing import growing_grams

            own[kind] = growing_grams(kind, bound, setup, files)
        complete.append(bound.with_statistics(Stored({**found, **own})))
    return complete


def parts(kind: str, setup: Setup, files: ExitStack) -> list[Part]:
    """One per expert: what the method is shown is the file's tensors, or worked out from them."""
    read: dict[str, Part] = {}
    data: dict[str, str] = {}
    for expert in [""] if KINDS[kind].of_base else setup.sources:
        path = setup.file(kind, expert)
        about = About.read(path)
        stored = files.enter_context(Checkpoint.open(path))
        require_intact(path, about, stored)
        require_shapes(path, kind, stored, setup.sources[expert] if expert else setup.base)
        read[expert] = Part(stored, about.size, frozenset(about.inputs_first))
        data[expert] = about.data
    match KINDS[kind].side:
        case "model":
            _require_same(kind, data)
            found = distances({expert: part.source for expert, part in read.items()})
            return [_numbers({kind: value}) for value in found.values()]
        case "tensor":
            values = [
                {name: float(read_finite(part.source, name)) for name in part.source.tensors} for part in read.values()
            ]
            return [_numbers(layer_shares(each)) for each in values]
        case _:
            return list(read.values())


def _numbers(values: Mapping[str, float]) -> Part:
    return Part(Checkpoint.open({name: torch.tensor(value) for name, value in values.items()}), 1.0)


def _require_same(kind: str, data: Mapping[str, str]) -> None:
    first, *others = data
    for other in others:
        if data[other] != data[first]:
            raise DataError(
                f"{kind} of experts {first!r} and {other!r} was measured on different examples: fingerprints "
                f"{data[first][:16]} and {data[other][:16]}.",
                hint="Delete both files, and measure again on the same tasks.",
            )
