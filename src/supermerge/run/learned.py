"""A learned method in a run: learn coefficients on the workbench, then merge the files with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from supermerge.assemble import Choice, give_back_freed_memory
from supermerge.distributed import current
from supermerge.errors import RefusedError
from supermerge.learn import Diverged, Learned
from supermerge.learn.basis import Basis
from supermerge.learn.file_merge import file_coefficients, merge_of
from supermerge.learn.hierarchy import learn_tree
from supermerge.learn.session import Session
from supermerge.learn.tree import Tree
from supermerge.methods import Bound, Method
from supermerge.methods.settings import LearnSettings
from supermerge.run.measuring import measured
from supermerge.run.prepared import Prepared
from supermerge.run.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True)
class LearnedMerge:
    """What learning gave: coefficients per model parameter, and the merge of the files that they describe."""

    learned: Learned
    settings: LearnSettings
    merge: Bound
    seconds: float
    tree: tuple[Tree, ...] | None = None
    groups: Mapping[str, Path] = field(default_factory=dict)
    """In a tree: the merges of its groups that are to be kept, by name."""


@contextmanager
def basis_of(ready: Prepared, settings: LearnSettings) -> Iterator[Basis]:
    """What is learned on, with the statistics that the method to start from needs; their files are open inside."""
    basis = Basis.of(settings, list(ready.match.experts), ready.match)
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
        climbed = learn_tree(session, method, settings, settings.hierarchy) if settings.hierarchy else None
        learned = climbed.learned if climbed else session.learn(settings, basis)
        # Gradients of many small tensors leave holes, which merging does not fill.
        give_back_freed_memory()
    except Diverged as error:
        if keep_at is None:
            raise
        if current().rank == 0:
            keep_at.parent.mkdir(parents=True, exist_ok=True)
            error.coefficients.save(keep_at)
        raise RefusedError(error.message, hint=f"{error.hint} The last good coefficients are in {keep_at}.") from error
    merge = merge_of(method, basis, file_coefficients(learned.coefficients, session.bench.binding, session.match.base))
    if climbed is None:
        return LearnedMerge(learned, settings, merge, watch.seconds)
    return LearnedMerge(learned, settings, merge, watch.seconds, climbed.tree, climbed.kept)
