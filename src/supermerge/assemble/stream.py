"""The streaming pass: a method and matched checkpoints in, merged tensors out, in bounded memory.

Methods that may be cut see blocks of fixed size; the others see whole tensors, several at a time while they fit into a
budget. Reading, computing and writing overlap, because several tensors are merged at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from supermerge.assemble.choice import Choice, Rules, chosen
from supermerge.assemble.geometry import Geometry, Products
from supermerge.assemble.passes import Passes
from supermerge.assemble.pieces import Hashes, arithmetic
from supermerge.assemble.workers import give_back_freed_memory
from supermerge.checkpoint import Match, TensorInfo, hash_stored
from supermerge.distributed import ALONE, Peers, union
from supermerge.errors import RefusedError
from supermerge.events import emit, phase
from supermerge.methods import Bound


class Sink(Protocol):
    """Takes merged tensors as they come, in any order of names; the pieces of one name come in order."""

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Elements from `start` on of the flattened tensor."""
        ...


@dataclass(slots=True)
class Assembled:
    """What a pass saw on the way: BLAKE3 of every tensor read, and the geometry where asked for.

    Of an adapter on the base, the hashes are those of its own tensors.
    """

    base_hashes: dict[str, str] = field(default_factory=dict)
    expert_hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    geometry: Geometry | None = None

    @classmethod
    def of_all(cls, parts: Sequence[Assembled], names: Sequence[str]) -> Self:
        """What several processes saw, each of other tensors, in the order `names`."""
        order = {name: place for place, name in enumerate(names)}
        experts = dict.fromkeys(expert for part in parts for expert in part.expert_hashes)
        result = cls(
            union([part.base_hashes for part in parts], order),
            {expert: union([part.expert_hashes.get(expert, {}) for part in parts], order) for expert in experts},
        )
        found = [part.geometry for part in parts if part.geometry is not None]
        if found:
            base, grams = union([part.base for part in found], order), union([part.grams for part in found], order)
            result.geometry = Geometry(found[0].experts, base, grams)
        return result


@dataclass(slots=True)
class Seen:
    """The hashes, and the inner products where asked for, of one tensor."""

    name: str
    hashes: Hashes
    products: Products | None = None

    @classmethod
    def of(cls, name: str, work: Passes, *, geometry: bool) -> Seen:
        """Nothing seen yet."""
        k = len(work.experts)
        wanted = geometry and name in work.bounds
        return cls(name, Hashes(k), Products(k) if wanted else None)


def output_infos(match: Match, dtype: torch.dtype | None = None) -> list[TensorInfo]:
    """What `merge_into` writes: the base's names, shapes and order, floating tensors in `dtype` (None: the base's)."""
    return [
        TensorInfo(info.name, dtype if dtype and info.is_floating else info.dtype, info.shape)
        for info in match.base.tensors.values()
    ]


def assemble(
    method: str | Bound | Choice,
    match: Match,
    *,
    params: Mapping[str, Any] | None = None,
    weights: Sequence[float] | None = None,
    rules: Rules = (),
    seed: int = 0,
    threads: int | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """(name, merged tensor in fp32) for every tensor that is merged, or those in `names`, in order, one at a time."""
    work = Passes(match, chosen(method, params, weights, rules), seed, threads)
    work.survey()

    def whole(name: str) -> tuple[str, Tensor]:
        info = match.base.tensors[name]
        with torch.inference_mode(False):  # whoever merges may go on and train
            merged = torch.empty(info.shape, dtype=arithmetic(info.dtype))
        flat = merged.view(-1)
        for start, values in work.merge(name):
            flat[start : start + len(values)] = values
        return name, merged

    yield from work.over(match.merged if names is None else names, whole, ordered=True)


def merge_into(
    sink: Sink,
    method: str | Bound | Choice,
    match: Match,
    *,
    params: Mapping[str, Any] | None = None,
    weights: Sequence[float] | None = None,
    rules: Rules = (),
    seed: int = 0,
    threads: int | None = None,
    names: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    geometry: bool = False,
    peers: Peers = ALONE,
) -> Assembled:
    """Merge into `sink`: every tensor of the base, or those in `names`, cast once, at the end, to `dtype`.

    Of several processes (`peers`) each has names of its own; the model is surveyed together.

    Tensors that are not merged are copied from the base. Raises CheckpointError for NaN or infinity in a tensor read,
    RefusedError where the result does not fit into `dtype`.
    """
    work = Passes(match, chosen(method, params, weights, rules), seed, threads, peers)
    work.survey()

    def write(name: str) -> Seen:
        seen = Seen.of(name, work, geometry=geometry)
        write_tensor(sink, name, work, seen, dtype)
        return seen

    wanted = list(match.base.tensors if names is None else names)
    # The largest first, so that no thread is left alone with one at the end.
    by_size = sorted(wanted, key=lambda name: -match.base.tensors[name].numel)
    seen: dict[str, Seen] = {}
    with phase("merge"):
        for done, one in enumerate(work.over(by_size, write, ordered=False), 1):
            seen[one.name] = one
            peers.heed()
            emit("progress", phase="merge", done=done, total=len(wanted), unit="tensors")
    give_back_freed_memory()
    return gathered(work, [seen[name] for name in wanted])


def write_tensor(sink: Sink, target: str, work: Passes, seen: Seen, dtype: torch.dtype | None) -> None:
    """Merge a tensor into `sink` under the name `target`, or copy it from the base where it is not merged."""
    info = work.match.base.tensors[seen.name]
    if seen.name not in work.bounds:
        for start, stored in work.reader.raw(seen.name, seen.hashes):
            sink.write_flat(target, start, stored.to(dtype) if dtype and info.is_floating else stored)
        return
    for start, merged in work.merge(seen.name, seen.hashes, seen.products):
        sink.write_flat(target, start, cast(merged, dtype or info.dtype, seen.name))


def gathered(work: Passes, seen: Sequence[Seen]) -> Assembled:
    """What was seen, tensor by tensor."""
    result = Assembled({one.name: one.hashes.base.hexdigest() for one in seen})
    merged = [one for one in seen if one.name in work.bounds]
    for i, (expert, view) in enumerate(work.thin.adapters.items()):
        if view is None:
            result.expert_hashes[expert] = {one.name: one.hashes.experts[i].hexdigest() for one in merged}
        else:
            result.expert_hashes[expert] = {name: hash_stored(view.store, name) for name in view.store.tensors}
    found = {one.name: one.products for one in merged if one.products is not None and one.name not in work.match.tied}
    if found:
        base = {name: products.base for name, products in found.items()}
        result.geometry = Geometry(work.experts, base, {name: products.taus for name, products in found.items()})
    return result


def cast(merged: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """`merged` in `dtype`; RefusedError where a value does not fit."""
    cast = merged.to(dtype)
    total = cast.sum() if dtype.itemsize > 1 else cast.float().sum()  # fp8 has no arithmetic of its own
    if not math.isfinite(float(total)) and not torch.isfinite(cast.float()).all():
        lost = int((~torch.isfinite(merged)).sum())
        if lost:
            raise RefusedError(
                f"merged tensor {name!r}: {lost} values are NaN or infinite, and every input is finite.",
                hint="Numbers became too large on the way: use smaller weights or parameters, or another method.",
            )
        raise RefusedError(
            f"merged tensor {name!r}: a value of {float(merged.abs().max()):g} does not fit into {dtype}.",
            hint="Choose a wider dtype for the output, or smaller weights.",
        )
    return cast
