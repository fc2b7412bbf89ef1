"""A streaming pass that makes several tensors of every one: each into a sink of its own."""

from __future__ import annotations

from collections.abc import Sequence

from supermerge.assemble.choice import Choice
from supermerge.assemble.passes import Passes
from supermerge.assemble.pieces import arithmetic
from supermerge.assemble.stream import Sink, cast
from supermerge.checkpoint import Match
from supermerge.events import emit, phase
from supermerge.methods import Bound


def several_into(sinks: Sequence[Sink], method: Bound, match: Match, *, seed: int, threads: int | None = None) -> None:
    """Every merged tensor, by a method whose function gives `[n, *shape]`: the i-th of the n into the i-th of n sinks.

    They come in the dtype of the arithmetic. Raises CheckpointError and RefusedError as `merge_into`.
    """
    work = Passes(match, Choice(method), seed, threads)
    work.survey()

    def write(name: str) -> None:
        dtype = arithmetic(match.base.tensors[name].dtype)
        for start, made in work.merge(name):
            for sink, values in zip(sinks, made.view(len(sinks), -1), strict=True):
                sink.write_flat(name, start, cast(values, dtype, name))

    by_size = sorted(match.merged, key=lambda name: -match.base.tensors[name].numel)
    with phase("derive"):
        for done, _ in enumerate(work.over(by_size, write, ordered=False), 1):
            emit("progress", phase="derive", done=done, total=len(by_size), unit="tensors")
