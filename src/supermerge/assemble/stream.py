"""The streaming pass: a method and matched checkpoints in, merged tensors out, in bounded memory.

Element-scope methods see pieces of fixed size; the others see whole tensors, several at a time while they fit into
the budget. Every tensor is one job of one thread, so its pieces are read, hashed and written in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from supermerge.assemble.choice import Choice, Rules, chosen
from supermerge.assemble.geometry import Geometry, add_gram
from supermerge.assemble.pieces import Hashes, Piece, Reader, arithmetic, piece_elements
from supermerge.assemble.workers import default_threads, parallel
from supermerge.checkpoint import Match, TensorInfo
from supermerge.errors import RefusedError
from supermerge.events import emit, phase
from supermerge.methods import BLOCK, Bound, Context, Survey

_BUDGET = 1 << 30
"""Bytes that whole tensors merged at the same time may hold together; a larger single tensor is merged alone."""


class Sink(Protocol):
    """Takes merged tensors as they come, in any order of names; the pieces of one name come in order."""

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Elements from `start` on of the flattened tensor."""
        ...


@dataclass(slots=True)
class Assembled:
    """What a pass saw on the way: BLAKE3 of every tensor read, and the geometry where asked for."""

    base_hashes: dict[str, str] = field(default_factory=dict)
    expert_hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    geometry: Geometry | None = None


@dataclass(slots=True)
class _Seen:
    name: str
    hashes: Hashes
    gram: Tensor | None = None


class _Pass:
    """The tensors of a match, and the method chosen for each."""

    def __init__(self, match: Match, choice: Choice, seed: int, threads: int | None) -> None:
        choice.rehearse(len(match.experts))
        choice.require_functions()
        self.match, self.seed = match, seed
        self.threads = threads or default_threads()
        self.experts = tuple(match.experts)
        # A tied alias takes its twin's method, so that the two stay equal.
        self.bounds = {name: choice(match.tied.get(name, name)) for name in match.merged}
        self._cut: dict[int, bool] = {}
        self._local = threading.local()
        self._surveys: dict[int, Survey | None] = {}

    @property
    def reader(self) -> Reader:
        if not hasattr(self._local, "reader"):
            self._local.reader = Reader(self.match)
        return self._local.reader

    def context(self, name: str, offset: int) -> Context:
        shape = self.match.base.tensors[name].shape
        return Context(self.match.tied.get(name, name), shape, self.experts, self.seed, offset)

    def _chunked(self, bound: Bound) -> bool:
        if id(bound) not in self._cut:
            self._cut[id(bound)] = bound.chunked
        return self._cut[id(bound)]

    def cost(self, name: str) -> int:
        """Bytes that merging a tensor holds, roughly."""
        info, k = self.match.base.tensors[name], len(self.experts)
        pieces = name not in self.bounds or self._chunked(self.bounds[name])
        numel = min(info.numel, piece_elements(k)) if pieces else info.numel
        return numel * 4 * 2 * (k + 2)

    def over(self, names: Sequence[str], work: Callable[[str], Any], ordered: bool) -> Iterator[Any]:
        return parallel(names, work, threads=self.threads, cost=self.cost, limit=_BUDGET, ordered=ordered)

    def survey(self) -> None:
        """Run the surveys of all tensors that the chosen methods need; tied tensors count once."""
        groups: dict[int, tuple[Bound, list[str]]] = {}
        for name, bound in self.bounds.items():
            if bound.scope == "model" and name not in self.match.tied:
                groups.setdefault(id(bound), (bound, []))[1].append(name)
        for key, (bound, names) in groups.items():
            survey = self._surveys[key] = bound.survey(len(self.experts))
            if survey is not None:
                with phase("survey"):
                    self._fill(survey, bound, names)

    def _fill(self, survey: Survey, bound: Bound, names: Sequence[str]) -> None:
        def observe(name: str) -> None:
            for piece in self.pieces(name):
                self._observe(survey, name, piece)

        again = True
        while again:
            for done, _ in enumerate(self.over(names, observe, ordered=False), 1):
                emit("progress", phase="survey", done=done, total=len(names), unit="tensors")
            again = survey.finish_pass()

    def _observe(self, survey: Survey, name: str, piece: Piece) -> None:
        rows = self._shaped(name, piece)
        survey.observe(self.context(name, piece.start), rows[0], rows[1:])

    def merge(self, name: str, hashes: Hashes | None = None) -> Iterator[tuple[Piece, Tensor]]:
        """Every piece of a tensor with its merge, flat, in the arithmetic's dtype."""
        bound = self.bounds[name]
        survey = self._surveys.get(id(bound)) if bound.scope == "model" else bound.survey(len(self.experts))
        single = self.match.base.tensors[name].numel <= piece_elements(len(self.experts))
        # A tensor of one piece is read once, whatever its survey asks for.
        kept = list(self.pieces(name, hashes)) if single else None
        if survey is not None and bound.scope == "tensor":
            again = True
            while again:
                for piece in kept or self.pieces(name):
                    self._observe(survey, name, piece)
                again = survey.finish_pass()
        for piece in kept or self.pieces(name, hashes):
            rows = self._shaped(name, piece)
            if not rows.numel():
                yield piece, rows[0].reshape(-1)
                return
            yield piece, self._merged(name, piece.start, rows, survey)

    def _merged(self, name: str, start: int, rows: Tensor, survey: Survey | None) -> Tensor:
        """A piece, merged and flat; cut into blocks where it may be, so that what is computed stays in the cache."""
        bound = self.bounds[name]
        if not self._chunked(bound):
            return bound(rows[0], rows[1:], self.context(name, start), survey).reshape(-1)
        merged = torch.empty_like(rows[0])
        for first in range(0, rows.shape[1], BLOCK):
            block = rows[:, first : first + BLOCK]
            merged[first : first + BLOCK] = bound(block[0], block[1:], self.context(name, start + first), survey)
        return merged

    def pieces(self, name: str, hashes: Hashes | None = None) -> Iterator[Piece]:
        return self.reader.pieces(name, whole=not self._chunked(self.bounds[name]), hashes=hashes)

    def _shaped(self, name: str, piece: Piece) -> Tensor:
        if self._chunked(self.bounds[name]):
            return piece.rows
        return piece.rows.view(len(piece.rows), *self.match.base.tensors[name].shape)


def output_infos(match: Match, dtype: torch.dtype | None = None) -> list[TensorInfo]:
    """What `merge_into` writes: the base's names, shapes and order, floating tensors in `dtype` (None: the base's)."""
    return [
        TensorInfo(info.name, dtype if dtype and info.is_floating else info.dtype, info.shape)
        for info in match.base.tensors.values()
    ]


def assemble(
    method: str | Bound,
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
    work = _Pass(match, chosen(method, params, weights, rules), seed, threads)
    work.survey()

    def whole(name: str) -> tuple[str, Tensor]:
        info = match.base.tensors[name]
        merged = torch.empty(info.numel, dtype=arithmetic(info.dtype))
        for piece, values in work.merge(name):
            merged[piece.start : piece.start + len(values)] = values
        return name, merged.view(info.shape)

    yield from work.over(match.merged if names is None else names, whole, ordered=True)


def merge_into(
    sink: Sink,
    method: str | Bound,
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
) -> Assembled:
    """Merge into `sink`: every tensor of the base, or those in `names`, cast once, at the end, to `dtype`.

    Tensors that are not merged are copied from the base. Raises CheckpointError for NaN or infinity in a tensor read,
    RefusedError where the result does not fit into `dtype`.
    """
    work = _Pass(match, chosen(method, params, weights, rules), seed, threads)
    work.survey()

    def write(name: str) -> _Seen:
        info, hashes = match.base.tensors[name], Hashes(len(work.experts))
        if name not in work.bounds:
            for start, stored in work.reader.raw(name, hashes):
                sink.write_flat(name, start, stored.to(dtype) if dtype and info.is_floating else stored)
            return _Seen(name, hashes)
        inner = torch.zeros(len(work.experts) + 1, len(work.experts) + 1, dtype=torch.float64) if geometry else None
        for piece, merged in work.merge(name, hashes):
            if inner is not None:
                add_gram(inner, piece.rows)
            sink.write_flat(name, piece.start, _cast(merged, dtype or info.dtype, name))
        return _Seen(name, hashes, inner)

    wanted = list(match.base.tensors if names is None else names)
    # The largest first, so that no thread is left alone with one at the end.
    by_size = sorted(wanted, key=lambda name: -match.base.tensors[name].numel)
    seen: dict[str, _Seen] = {}
    with phase("merge"):
        for done, one in enumerate(work.over(by_size, write, ordered=False), 1):
            seen[one.name] = one
            emit("progress", phase="merge", done=done, total=len(wanted), unit="tensors")
    return _gathered(work, [seen[name] for name in wanted])


def _gathered(work: _Pass, seen: Sequence[_Seen]) -> Assembled:
    result = Assembled({one.name: one.hashes.base.hexdigest() for one in seen})
    merged = [one for one in seen if one.name in work.bounds]
    for i, expert in enumerate(work.experts):
        result.expert_hashes[expert] = {one.name: one.hashes.experts[i].hexdigest() for one in merged}
    grams = {one.name: one.gram for one in merged if one.gram is not None and one.name not in work.match.tied}
    if grams:
        result.geometry = Geometry(work.experts, grams)
    return result


def _cast(merged: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    cast = merged.to(dtype)
    total = cast.sum() if dtype.itemsize > 1 else cast.float().sum()  # fp8 has no arithmetic of its own
    if not torch.isfinite(total) and not torch.isfinite(cast.float()).all():
        raise RefusedError(
            f"merged tensor {name!r}: a value of {float(merged.abs().max()):g} does not fit into {dtype}.",
            hint="Choose a wider dtype for the output, or smaller weights.",
        )
    return cast
