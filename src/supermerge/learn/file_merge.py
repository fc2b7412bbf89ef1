"""What learned coefficients make of the files: an element-scope merge of the base's tensors, written where asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supermerge.assemble import merge_into
from supermerge.checkpoint import Match, ShardWriter, TensorSource
from supermerge.learn.basis import Basis
from supermerge.learn.coefficients import Coefficients
from supermerge.methods import Bound, Context, Method, weighted_sum
from supermerge.methods.factored import FactoredMerge, combined

if TYPE_CHECKING:
    from supermerge.tasks.binding import Binding

_SHARD = 5_000_000_000


def merge_of(method: Method, basis: Basis, coefficients: Mapping[str, Tensor]) -> Bound:
    """`method` with these coefficients: θp(j) + Σᵢ c(i, j) v(i, j), `coefficients[j]` being `[k]` or `[k, rows]`.

    With rows, tensors may be cut anywhere: a piece takes the coefficients of the rows that its elements lie in.
    """

    def weighted(base: Tensor, vectors: Sequence[Tensor], context: Context) -> Tensor:
        c = coefficients[context.name]
        if c.dim() == 1:
            return weighted_sum(base, vectors, c)
        width = max(1, math.prod(context.shape) // c.shape[1])
        first = context.offset // width
        last = (context.offset + base.numel() - 1) // width + 1
        start = context.offset - first * width
        per_element = c[:, first:last].repeat_interleave(width, dim=1)[:, start : start + base.numel()]
        flat = (vector.reshape(-1) for vector in vectors)
        return weighted_sum(base.reshape(-1), flat, per_element).view(base.shape)

    def on_factors(values: object, k: int) -> FactoredMerge:
        return lambda taus, context: combined(taus, coefficients[context.name])

    return basis.bound(method, weighted, factored=on_factors)


def file_coefficients(coefficients: Coefficients, binding: Binding, base: TensorSource) -> dict[str, Tensor]:
    """link(w) per tensor of the base's file: `[k]`, or `[k, rows]`."""
    effective = {name: coefficients.effective(name) for name in coefficients.groups}
    return binding.file_coefficients(effective, base)


def write_merge(bound: Bound, match: Match, directory: Path, seed: int) -> None:
    """Write the merged tensors of `match` into `directory`, in fp32, under the base's file names."""
    infos = [replace(match.base.tensors[name], dtype=torch.float32) for name in match.merged]
    with ShardWriter(directory, infos, shard_size=_SHARD) as writer:
        merge_into(writer, bound, match, seed=seed, names=match.merged, dtype=torch.float32)
        writer.close()
