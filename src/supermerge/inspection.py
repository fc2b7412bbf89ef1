"""Inspect checkpoints: what they hold and, with a base, where they differ from it and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supermerge.assemble import Nowhere, merge_into
from supermerge.checkpoint import Checkpoint, Match, match, open_expert
from supermerge.relation import require_plausible


@dataclass(frozen=True, slots=True)
class Inspected:
    """One checkpoint: elements per dtype, and the class its config names, if it has a config."""

    name: str
    ref: str
    architecture: str | None
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All checkpoints against the base: what a merge would take, and the length and direction of the task vectors."""

    merged: int
    copied: int
    heads: dict[str, list[str]]
    prefixes: dict[str, str]
    notes: list[str]
    norms: list[float]
    relative_norms: list[float]
    cosines: list[list[float]]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found; `comparison` only with a base, which is then the first of `models`."""

    models: tuple[Inspected, ...]
    comparison: Comparison | None

    def to_json(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        return asdict(self)


def inspect(checkpoints: Sequence[str], base: str | None = None) -> Inspection:
    """Read the headers of `checkpoints`; with a `base` also every task vector, once; they may then be adapters.

    Raises CheckpointError, with every difference, where a checkpoint does not fit the base.
    """
    refs = dict(zip(_names(checkpoints), checkpoints, strict=True))
    with ExitStack() as stack:
        if base is None:
            alone = {name: stack.enter_context(Checkpoint.open(ref)) for name, ref in refs.items()}
            return Inspection(tuple(_inspected(name, refs[name], source) for name, source in alone.items()), None)
        base_source = stack.enter_context(Checkpoint.open(base))
        sources = {name: open_expert(ref, base_source, stack) for name, ref in refs.items()}
        found = [_inspected(name, refs[name], source) for name, source in sources.items()]
        fit = match(base_source, sources)
        return Inspection((_inspected("base", base, base_source), *found), _compared(fit))


def _inspected(name: str, ref: str, source: Checkpoint) -> Inspected:
    infos = source.tensors.values()
    dtypes: dict[str, int] = {}
    for info in infos:
        dtype = str(info.dtype).removeprefix("torch.")
        dtypes[dtype] = dtypes.get(dtype, 0) + info.numel
    return Inspected(
        name=name,
        ref=ref,
        architecture=next(iter(source.architectures), source.config.get("model_type")),
        tensors=len(source.tensors),
        parameters=sum(info.numel for info in infos),
        bytes=sum(info.nbytes for info in infos),
        dtypes=dtypes,
    )


def _compared(fit: Match) -> Comparison:
    geometry = merge_into(Nowhere(), "linear", fit, names=fit.merged, geometry=True).geometry
    assert geometry is not None
    require_plausible(geometry, fit)
    return Comparison(
        merged=len(fit.merged),
        copied=len(fit.copied),
        heads=fit.heads,
        prefixes=fit.prefixes,
        notes=fit.notes,
        norms=geometry.norms,
        relative_norms=geometry.relative_norms,
        cosines=geometry.cosines,
    )


def _names(refs: Sequence[str]) -> list[str]:
    """A short name for each: its last part, or as much of its path as tells it from the others."""
    paths = [Path(ref.rstrip("/")) for ref in refs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{ref} ({number})" for number, ref in enumerate(refs, start=1)]
