"""The values of an adapter that holds a merge: factors, scales and whole tensors, streamed like those of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from supermerge.assemble.adapter.layout import AdapterLayout
from supermerge.assemble.adapter.scales import merge_scales
from supermerge.assemble.choice import Choice
from supermerge.assemble.geometry import Geometry
from supermerge.assemble.passes import Passes
from supermerge.assemble.stream import Assembled, Seen, Sink, cast, gathered, write_tensor
from supermerge.assemble.workers import give_back_freed_memory
from supermerge.checkpoint import Match
from supermerge.checkpoint.adapters.saved import Product
from supermerge.events import emit, phase
from supermerge.methods.factored import Factors
from supermerge.methods.spectral import svd


@dataclass(slots=True)
class AdapterMerge:
    """What a pass saw, and ‖τ − BA‖ / ‖τ‖ (Frobenius) of every module that was recompressed."""

    assembled: Assembled
    errors: dict[str, float] = field(default_factory=dict)


def merge_into_adapter(
    sink: Sink,
    layout: AdapterLayout,
    choice: Choice,
    match: Match,
    *,
    seed: int = 0,
    threads: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> AdapterMerge:
    """Write every tensor of `layout.saved.infos(dtype)`: B · A = θ − θp, s = 1; for IA3 the merge of the scales.

    What factors make is written as they are: for a sum, all A one below the other and all B beside each other, with
    coefficient and scaling in B. Everything else is cut to its rank by a singular value decomposition.
    """
    work, errors = Passes(match, choice, seed, threads), dict[str, float]()

    def write(name: str) -> Seen:
        seen = Seen.of(name, work, geometry=True)
        if name in layout.whole:
            write_tensor(sink, layout.saved.stored(layout.whole[name]), work, seen, dtype)
            return seen
        module = layout.products[name]
        change, product = work.change(name, seen.hashes, seen.products), layout.saved.products[module]
        if name not in layout.exact:
            change, errors[module] = cut(change, product.rank)
        a, b = _matrices(change, product)
        sink.write_flat(layout.saved.a(module), 0, cast(a, dtype, name))
        sink.write_flat(layout.saved.b(module), 0, cast(b, dtype, name))
        return seen

    names = [*layout.whole, *layout.products]
    seen: list[Seen] = []
    with phase("merge"):
        if names:
            work.survey()
        for one in work.over(names, write, ordered=True):
            seen.append(one)
            emit("progress", phase="merge", done=len(seen), total=len(names), unit="tensors")
        assembled = gathered(work, seen)
        if layout.scales:
            of_scales = merge_scales(sink, layout, choice, match, seed=seed, threads=threads, dtype=dtype)
            assembled.geometry = _together(work.experts, [assembled.geometry, of_scales])
    give_back_freed_memory()
    errors = {module: errors[module] for module in layout.saved.products if module in errors}
    for module, error in errors.items():
        emit("recompressed", module=module, rank=layout.saved.products[module].rank, error=error)
    return AdapterMerge(assembled, errors)


def _together(experts: tuple[str, ...], parts: Sequence[Geometry | None]) -> Geometry:
    known = [part for part in parts if part is not None]
    base = {name: square for part in known for name, square in part.base.items()}
    return Geometry(experts, base, {name: gram for part in known for name, gram in part.grams.items()})


def cut(change: Factors | Tensor, rank: int) -> tuple[Factors, float]:
    """The closest of `rank` to a matrix, its singular values divided evenly, and ‖what is lost‖ / ‖matrix‖."""
    found = change.svd() if isinstance(change, Factors) else svd(change)
    root = found.s[:rank].sqrt()
    kept = Factors(found.u[:, :rank] * root, root[:, None] * found.vh[:rank])
    if isinstance(change, Factors):
        size, lost = found.s.norm(), found.s[rank:].norm()
    else:
        size, lost = change.norm(), (change - kept.left @ kept.right).norm()
    return kept, float(lost / size) if size else 0.0


def _matrices(change: Factors | Tensor, product: Product) -> tuple[Tensor, Tensor]:
    """A and B, flat, of exactly the product's rank: what the change lacks of it is zero."""
    assert isinstance(change, Factors)
    left, right = (torch.zeros(n, product.rank, dtype=torch.float64) for n in (len(change.left), change.right.shape[1]))
    left[:, : change.rank], right[:, : change.rank] = change.left, change.right.T
    if product.transposed:
        left, right = right, left
    return right.T.reshape(-1), left.reshape(-1)
