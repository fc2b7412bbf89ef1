"""A learned method in a run: learn coefficients on the workbench, then merge the files with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from supermerge.assemble import Choice
from supermerge.checkpoint import TensorSource
from supermerge.errors import RefusedError
from supermerge.learn import Coefficients, Diverged, Learned
from supermerge.learn.basis import Basis
from supermerge.learn.session import Session
from supermerge.methods import Bound, Context, Method, weighted_sum
from supermerge.methods.factored import FactoredMerge, combined
from supermerge.methods.settings import LearnSettings
from supermerge.run.measuring import measured
from supermerge.run.prepared import Prepared
from supermerge.run.stopwatch import Stopwatch

if TYPE_CHECKING:
    from supermerge.tasks.binding import Binding


@dataclass(frozen=True, slots=True)
class LearnedMerge:
    """What learning gave: coefficients per model parameter, and the merge of the files that they describe."""

    learned: Learned
    settings: LearnSettings
    merge: Bound
    seconds: float


@contextmanager
def basis_of(ready: Prepared, settings: LearnSettings) -> Iterator[Basis]:
    """What is learned on, with the statistics that the method to start from needs; their files are open inside."""
    basis = Basis.of(settings, list(ready.match.experts))
    if basis.start is None:
        yield basis
        return
    with measured(ready, Choice(basis.start)) as choice:
        yield replace(basis, start=choice.default)


def learn_merge(
    session: Session, method: Method, settings: LearnSettings, basis: Basis, keep_at: Path | None
) -> LearnedMerge:
    """Learn, and give the method with its coefficients: an element-scope merge of the base's file tensors.

    Where learning diverges, the last good coefficients are kept at `keep_at` and the error names them.
    """
    watch = Stopwatch()
    try:
        learned = session.learn(settings, basis)
    except Diverged as error:
        if keep_at is None:
            raise
        keep_at.parent.mkdir(parents=True, exist_ok=True)
        error.coefficients.save(keep_at)
        raise RefusedError(error.message, hint=f"{error.hint} The last good coefficients are in {keep_at}.") from error
    merge = merge_of(method, basis, file_coefficients(learned.coefficients, session.bench.binding, session.match.base))
    return LearnedMerge(learned, settings, merge, watch.seconds)


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
