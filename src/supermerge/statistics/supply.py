"""Methods and their statistics: whatever some methods need of the experts, measured or found, and given to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from supermerge.checkpoint import Checkpoint
from supermerge.methods import KINDS, Bound
from supermerge.statistics.file import About
from supermerge.statistics.measure import Setup
from supermerge.statistics.stored import Part, Stored


def _kinds(bounds: Sequence[Bound]) -> list[str]:
    """Every kind of statistics that some of `bounds` need and do not have, each once."""
    return list(dict.fromkeys(kind for bound in bounds if bound.measured is None for kind in bound.kinds))


def supplied(bounds: Sequence[Bound], setup: Setup, files: ExitStack) -> list[Bound]:
    """`bounds`, in order, those that need statistics with them, from files that `files` closes.

    What is missing is measured and kept. Errors: as `Setup.file`.
    """
    kinds = _kinds(bounds)
    found = Stored({kind: _parts(kind, setup, files) for kind in kinds})
    return [bound.with_statistics(found) if bound.kinds and bound.measured is None else bound for bound in bounds]


def _parts(kind: str, setup: Setup, files: ExitStack) -> list[Part]:
    parts: list[Part] = []
    for expert in [""] if KINDS[kind].of_base else setup.sources:
        path = setup.file(kind, expert)
        about = About.read(path)
        stored = files.enter_context(Checkpoint.open(path))
        parts.append(Part(stored, about.size, frozenset(about.inputs_first)))
    return parts
