"""Passes over the tensors of a match: surveys of the model, then every tensor's merge, piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

from supermerge.accelerator import computed
from supermerge.assemble.choice import Choice
from supermerge.assemble.footprint import WHOLE_TENSORS_BYTES, tensor_bytes
from supermerge.assemble.geometry import Products
from supermerge.assemble.pieces import Hashes, Piece, Reader, piece_elements
from supermerge.assemble.thin import Thin, add_products, matrix_shape, row_blocks
from supermerge.assemble.workers import default_threads, parallel
from supermerge.checkpoint import Match
from supermerge.distributed import ALONE, Peers, deal
from supermerge.events import emit, phase
from supermerge.methods import BLOCK, Bound, Context, Survey
from supermerge.methods.factored import Factors
from supermerge.methods.survey import GramSurvey, PreviewedSurvey

Result = TypeVar("Result")

_DEVICE_COPIES = 6
"""How often a device must hold what a method sees of a tensor: in fp64, twice more in fp64, and what comes out."""


class Passes:
    """The tensors of a match, with the method chosen for each.

    Every tensor is one job of one thread, so its pieces are read, hashed and written in order.
    """

    def __init__(self, match: Match, choice: Choice, seed: int, threads: int | None, peers: Peers = ALONE) -> None:
        choice.rehearse(len(match.experts))
        choice.require_functions()
        self.match, self.seed, self._peers = match, seed, peers
        self.threads = threads or default_threads()
        self.experts = tuple(match.experts)
        # A tied alias takes its twin's method, so that the two stay equal.
        self.bounds = {name: choice(match.tied.get(name, name)) for name in match.merged}
        self._cut = {id(bound): bound.chunked for bound in self.bounds.values()}
        self.thin = Thin(match)
        self._local = threading.local()
        self._surveys: dict[int, Survey | None] = {}

    @property
    def reader(self) -> Reader:
        """This thread's reader."""
        if not hasattr(self._local, "reader"):
            self._local.reader = Reader(self.match, self.thin.adapters)
        return self._local.reader

    def over(self, names: Iterable[str], work: Callable[[str], Result], *, ordered: bool) -> Iterator[Result]:
        """`work` on every tensor, on several threads in bounded memory."""

        def on_tensor(name: str) -> Result:
            with self.mode(name):
                return work(name)

        limit = WHOLE_TENSORS_BYTES
        return parallel(names, on_tensor, threads=self.threads, cost=self._cost, limit=limit, ordered=ordered)

    def mode(self, name: str) -> AbstractContextManager[object]:
        """What reads and merges a tensor happens inside it, on every thread.

        A method that sees pieces has no autograd, whose bookkeeping would take a tenth of the time of such small
        operations; one that sees whole tensors may use it.
        """
        return torch.inference_mode(self._in_pieces(name))

    def survey(self) -> None:
        """Run the surveys of the model that the chosen methods need; tied tensors count once."""
        groups: dict[int, tuple[Bound, list[str]]] = {}
        for name, bound in self.bounds.items():
            if bound.scope == "model" and name not in self.match.tied:
                groups.setdefault(id(bound), (bound, []))[1].append(name)
        for key, (bound, names) in groups.items():
            survey = self._surveys[key] = bound.survey(len(self.experts))
            if survey is not None:
                with phase("survey"):
                    self._fill(survey, names)

    def merge(
        self, name: str, hashes: Hashes | None = None, products: Products | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Every piece of a tensor's merge, flat, in the arithmetic's dtype, and where it starts.

        `products` are added up on the way. Raises CheckpointError for NaN or infinity in base or experts.
        """
        factors = self.factors(name)
        if factors is not None:
            yield from self._from_factors(name, *factors, hashes, products)
            return
        bound = self.bounds[name]
        surveyed = bound.scope == "model" and self._surveys[id(bound)] is not None
        survey = self._surveys[id(bound)] if surveyed else bound.survey(len(self.experts))
        # A value that is not finite shows in the products, so nobody else needs to look for one.
        check = not surveyed and (products is None or survey is not None)
        # A tensor of one piece is read once, whatever its survey asks for.
        kept = [*self.pieces(name, hashes, check=check)] if self._single(name) else None
        if survey is not None and not surveyed:
            again = first = True
            if kept is None:
                self._preview(survey, name)
            while again:
                for piece in kept or self.pieces(name, None, check=first):
                    self._observe(survey, name, piece)
                again, first = survey.finish_pass(), False
        if products is not None and isinstance(survey, GramSurvey) and not surveyed:
            products.base, products.taus = float(survey.gram[0, 0]), survey.gram[1:, 1:]
            products = None  # all is known
        for piece in kept or self.pieces(name, hashes, check=check and survey is None):
            if products is not None:
                products.add(piece.rows)
                if not products.finite:
                    self.reader.require_finite(name)
            rows = self._shaped(name, piece)
            yield piece.start, self._made(name, rows, piece.start, survey).reshape(-1)

    def _made(self, name: str, rows: Tensor, start: int, survey: Survey | None) -> Tensor:
        """The merge of base and task vectors, `rows [k + 1, …]`."""
        bound, context = self.bounds[name], self._context(name, start)

        def made(rows: Tensor) -> Tensor:
            return bound(rows[0], rows[1:], context, survey)

        # Sums are made as fast as they are read; decompositions of whole tensors are what takes the time.
        if self._cut[id(bound)] or bound.kinds:
            return made(rows)
        return computed(made, rows, _DEVICE_COPIES * rows.nbytes)

    def factors(self, name: str) -> tuple[Factors, list[Factors]] | None:
        """θ − θp and τ₁ … τ_k of a tensor as factors, seen as matrices; None where its method needs them in full."""
        merge = self.bounds[name].factored(len(self.experts))
        if merge is None or not self.thin.has(name):
            return None
        taus = self.thin.taus(name)
        return merge(taus, self._context(name, 0)) if any(tau.rank for tau in taus) else taus[0], taus

    def change(self, name: str, hashes: Hashes | None = None, products: Products | None = None) -> Factors | Tensor:
        """θ − θp of a tensor, seen as a matrix: as factors where its merge has some, else in full, in fp64."""
        factors = self.factors(name)
        if factors is not None:
            change, taus = factors
            for _ in self._beside(name, taus, hashes, products):
                pass
            return change
        base = self.match.base.read(name).double()
        merged = torch.empty_like(base).view(-1)
        for start, values in self.merge(name, hashes, products):
            merged[start : start + len(values)] = values
        return (merged.view_as(base) - base).view(matrix_shape(base.shape))

    def _from_factors(
        self, name: str, change: Factors, taus: list[Factors], hashes: Hashes | None, products: Products | None
    ) -> Iterator[tuple[int, Tensor]]:
        for block, base in self._beside(name, taus, hashes, products):
            merged = base.double() + change.left[block] @ change.right if change.rank else base
            yield block.start * base.shape[1], merged.to(base.dtype).reshape(-1)

    def _beside(
        self, name: str, taus: list[Factors], hashes: Hashes | None, products: Products | None
    ) -> Iterator[tuple[slice, Tensor]]:
        """The base's rows, in blocks; `products` see them and the factors."""
        rows, columns = matrix_shape(self.match.base.tensors[name].shape)
        if products is not None:
            add_products(products.taus, taus)
        for block in row_blocks(rows, columns):
            base = self.reader.base_rows(name, block, columns, hashes)
            if products is not None:
                products.base += float(base.double().pow(2).sum())
            yield block, base

    def pieces(self, name: str, hashes: Hashes | None, *, check: bool) -> Iterator[Piece]:
        """A tensor in blocks where its method allows it, else whole; an empty tensor has none."""
        if self._cut[id(self.bounds[name])]:
            yield from self.reader.cuts(name, hashes, check=check, row=self._row(name))
        elif self.match.base.tensors[name].numel:
            yield self.reader.whole(name, hashes, check=check)

    def _row(self, name: str) -> int:
        """How many elements of a tensor its method must see together."""
        shape = self.match.base.tensors[name].shape
        return max(1, shape[-1]) if shape and self.bounds[name].scope == "row" else 1

    def _single(self, name: str) -> bool:
        limit = piece_elements(len(self.experts)) // self._row(name) * self._row(name)
        return not self._cut[id(self.bounds[name])] or self.match.base.tensors[name].numel <= limit

    def _preview(self, survey: Survey, name: str) -> None:
        if isinstance(survey, PreviewedSurvey):
            for piece, weight in self.reader.samples(name):
                survey.preview(self._context(name, piece.start), piece.rows[0], piece.rows[1:], weight)

    def _fill(self, survey: Survey, names: Sequence[str]) -> None:
        for name in names:
            self._preview(survey, name)
        shared = self._peers.size > 1 and survey.accounts() is not None
        if shared:
            sizes = {name: self.match.base.tensors[name].numel for name in names}
            names = deal(sizes, self._peers.size)[self._peers.rank]
        again = first = True
        while again:

            def observe(name: str, check: bool = first) -> None:
                for piece in self.pieces(name, None, check=check):
                    self._observe(survey, name, piece)

            for done, _ in enumerate(self.over(names, observe, ordered=False), 1):
                self._peers.heed()
                emit("progress", phase="survey", done=done, total=len(names), unit="tensors")
            if shared:
                accounts = survey.accounts() or ()
                parts = self._peers.exchange([account.entries() for account in accounts])
                for account, *entries in zip(accounts, *parts, strict=True):
                    account.replace(entries)
            again, first = survey.finish_pass(), False

    def _observe(self, survey: Survey, name: str, piece: Piece) -> None:
        rows = self._shaped(name, piece)
        survey.observe(self._context(name, piece.start), rows[0], rows[1:])

    def _context(self, name: str, offset: int) -> Context:
        shape = self.match.base.tensors[name].shape
        return Context(self.match.tied.get(name, name), shape, self.experts, self.seed, offset)

    def _shaped(self, name: str, piece: Piece) -> Tensor:
        if self.bounds[name].scope == "row":
            return piece.rows.view(len(piece.rows), -1, self._row(name))
        if self._cut[id(self.bounds[name])]:
            return piece.rows
        return piece.rows.view(len(piece.rows), *self.match.base.tensors[name].shape)

    def _cost(self, name: str) -> int:
        """Bytes that merging a tensor holds, roughly."""
        info, k = self.match.base.tensors[name], len(self.experts)
        if name in self.bounds and self.bounds[name].factored(k) is not None and self.thin.has(name):
            return 8 * (3 * self.thin.rank(name) * sum(matrix_shape(info.shape)) + 3 * BLOCK)
        return round(tensor_bytes(info, k, cut=self._in_pieces(name)))

    def _in_pieces(self, name: str) -> bool:
        """Whether a tensor is never seen whole; one that is copied is not."""
        return name not in self.bounds or self._cut[id(self.bounds[name])]
