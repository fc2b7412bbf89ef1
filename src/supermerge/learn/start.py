"""Where learning starts from another method's merge: its coefficients are those that come closest to that merge.

For a group of tensors that share coefficients, c minimises ‖θ* − θp − Σᵢ cᵢ τᵢ‖², θ* being the method's merge: with the
Gram matrix G = ⟨τᵢ, τⱼ⟩ and b = ⟨τᵢ, θ* − θp⟩ of the group, G c = b. Task arithmetic is met exactly; of what no
combination of task vectors reaches, such as trimming, the nearest one remains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from supermerge.assemble import merge_into
from supermerge.checkpoint import Buffer, Checkpoint, Match, ShardWriter, TensorInfo, TensorSource
from supermerge.errors import RecipeError
from supermerge.events import emit, phase
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.links import link as find_link
from supermerge.learn.parameters import find_mergeable
from supermerge.learn.task_vectors import row_blocks
from supermerge.methods import Bound, get, names
from supermerge.methods.settings import LearnSettings

if TYPE_CHECKING:
    from supermerge.tasks.workbench import Workbench

_RANK = 1e-6
"""Eigenvalues of a Gram matrix below this share of the largest count as zero: a merge in fp32 says nothing there."""
_BLOCK = 1 << 18
_SHARD = 5_000_000_000


def chosen_start(init: float | str, k: int) -> float | Bound:
    """What `init` means for k experts: a coefficient, or the method to start from; RecipeError for anything else."""
    if not isinstance(init, str):
        return init
    if init == "average":
        return 1 / k
    if init not in names():
        raise RecipeError(
            f"init: expected a number, 'average' or a method, found {init!r}.",
            hint="'average' starts every expert at 1/k; `supermerge methods` lists the methods.",
        )
    method = get(init)
    if method.learned is not None:
        raise RecipeError(
            f"init: {init} learns its coefficients itself.", hint="Start from a method that needs no data."
        )
    bound = method.bind()
    bound.rehearse(k)
    return bound


def projected_start(
    method: Bound,
    bench: Workbench,
    base: Checkpoint,
    experts: Mapping[str, TensorSource],
    settings: LearnSettings,
    *,
    seed: int,
    directory: Path | None,
) -> Coefficients:
    """Merge with `method` into a temporary file in `directory`, and project the result on the task vectors.

    `base` and `experts` have the base's file names. Coefficients that the link does not reach start at the nearest
    that it does, which a note says.
    """
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    with phase("starting"), TemporaryDirectory(dir=directory, prefix="start-") as scratch:
        _merge(method, bench, base, experts, seed, Path(scratch))
        with Checkpoint.open(scratch) as merged:
            bound = {name: bench.bind(source) for name, source in experts.items()}
            target = bench.bind(merged)
            return projected(bench.model, bench.bind(base), bound, target, settings, method.method.name)


def projected(
    model: nn.Module,
    base: TensorSource,
    experts: Mapping[str, TensorSource],
    target: TensorSource,
    settings: LearnSettings,
    name: str,
) -> Coefficients:
    """The coefficients whose merge of `model`'s tensors comes closest to `target`, the merge of the method `name`."""
    mergeable = find_mergeable(model, base, experts)
    tensors = mergeable.learned | mergeable.started
    coefficients = Coefficients.start(
        experts,
        {tensor: tuple(value.shape) for tensor, value in tensors.items()},
        link=settings.link,
        granularity=settings.granularity,
        value=0.0,
        fixed=mergeable.started,
        dtype=mergeable.dtype,
    )
    products: dict[str, Tensor] = {}
    for tensor in tensors:
        found = _products(tensor, base, [*experts.values(), target], by_row=settings.granularity == "row")
        group = coefficients.groups[tensor]
        products[group] = products[group] + found if group in products else found
    link, moved, total = find_link(settings.link), 0, 0
    for group, w in coefficients.w.items():
        wanted = _solved(products[group]).reshape(-1, len(experts)).T.reshape(w.shape)
        w.copy_(link.inverse(wanted))
        moved += int(((link.apply(w.double()) - wanted).abs() > 1e-6).sum())
        total += w.numel()
    if moved:
        emit(
            "note",
            message=f"init: {moved:,} of {total:,} coefficients of {name} are out of reach of link {settings.link}; "
            "they start at the nearest that it reaches.",
        )
    return coefficients


def _merge(
    method: Bound, bench: Workbench, base: Checkpoint, experts: Mapping[str, TensorSource], seed: int, directory: Path
) -> None:
    shared = set(bench.merged_names)
    wanted = [name for name, info in base.tensors.items() if name in shared and info.is_floating]
    tied = {double: original for double, original in bench.binding.doubles if double in wanted}
    match = Match(base, dict(experts), wanted, [], {}, {}, tied, [])
    infos = [TensorInfo(name, torch.float32, base.tensors[name].shape) for name in wanted]
    with ShardWriter(directory, infos, shard_size=_SHARD) as writer:
        merge_into(writer, method, match, seed=seed, names=wanted, dtype=torch.float32)
        writer.close()


def _products(tensor: str, base: TensorSource, others: list[TensorSource], *, by_row: bool) -> Tensor:
    """Inner products in fp64 of all `others` less the base: `[n, n]`, or `[rows, n, n]`, n = k + 1 with the target."""
    shape = base.tensors[tensor].shape
    width, blocks = math.prod(shape[1:]), []
    base_buffer, buffer = Buffer(), Buffer()
    for rows in row_blocks(shape, _BLOCK):
        start, stop = rows.start * width, rows.stop * width
        origin = base.read_flat(tensor, start, stop, buffer=base_buffer).double()
        deltas = torch.empty(len(others), len(origin), dtype=torch.float64)
        for delta, source in zip(deltas, others, strict=True):
            torch.sub(source.read_flat(tensor, start, stop, buffer=buffer).double(), origin, out=delta)
        by_rows = deltas.view(len(others), -1, width).transpose(0, 1) if by_row else deltas[None]
        blocks.append(by_rows @ by_rows.mT)
    return torch.cat(blocks) if by_row else torch.cat(blocks).sum(0)


def _solved(products: Tensor) -> Tensor:
    """c of G c = b, `[…, k]`, from `[[G, b], [bᵀ, ·]]`; of several solutions, the one nearest to equal coefficients.

    Along directions in which the task vectors do not differ, coefficients keep the best common one, 1ᵀb / 1ᵀG1.
    """
    gram, b = products[..., :-1, :-1], products[..., :-1, -1]
    total = gram.sum((-2, -1))
    common = torch.where(total > 0, b.sum(-1) / total, 0.0)[..., None]
    values, vectors = torch.linalg.eigh(gram)
    inverse = torch.where(values > _RANK * values[..., -1:].clamp(min=0), 1 / values, 0.0)
    rest = (b - gram.sum(-1) * common)[..., None]
    return common + (vectors @ (inverse[..., None] * (vectors.mT @ rest))).squeeze(-1)
