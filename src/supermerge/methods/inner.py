"""Merges of matrices that other methods build on, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from supermerge.methods.iso_c import flattened_sum
from supermerge.methods.selection import nth_largest
from supermerge.methods.spectral import mean
from supermerge.methods.transforms import agree_mean, keep_large, summed
from supermerge.methods.tsv_m import decorrelated_sum

MERGES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": summed,
    "mean": mean,
    "tsv_m": decorrelated_sum,
    "iso_c": flattened_sum,
}
"""[k, m, n] → [m, n]. All are homogeneous: c times the task vectors give c times the merge."""


def plain(taus: Tensor, merge: str) -> Tensor:
    """What `merge` does with tensors that are no matrices: the sum, or the mean."""
    return summed(taus) if merge == "sum" else mean(taus)


def largest(matrices: Sequence[Tensor], density: float) -> list[Tensor]:
    """Of every matrix the `density` share of largest elements, at least one; zero elsewhere."""
    kept = [max(1, int(density * matrix.numel())) for matrix in matrices]
    return [keep_large(matrix, nth_largest(matrix, count)) for matrix, count in zip(matrices, kept, strict=True)]


def agreed(matrices: Sequence[Tensor]) -> Tensor:
    """[m, n]: the mean over the experts of the elements that have the sign of their sum; 0 where that is zero.

    TIES' election in a basis of singular vectors, whose signs are arbitrary: no sign may be preferred.
    """
    return agree_mean(matrices, torch.sign(summed(matrices)), [1.0] * len(matrices))
