"""What merging holds in memory: what the pass over the tensors goes by, and what a plan counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supermerge.assemble.choice import Choice
from supermerge.assemble.pieces import piece_elements
from supermerge.assemble.workers import default_threads
from supermerge.checkpoint import Match, TensorInfo

WHOLE_TENSORS_BYTES = 1 << 30
"""What whole tensors that are merged at the same time may hold together; a larger single tensor is merged alone."""

A_SUM = 8
"""Bytes per element that a method holds which adds up: the sum and one product, in fp32."""


def tensor_bytes(info: TensorInfo, k: int, *, cut: bool, own: float = A_SUM) -> float:
    """Two read buffers as stored, base and k task vectors in fp32, and the method's `own` bytes per element.

    Of a tensor that is `cut`, one piece is held at a time.
    """
    numel = min(info.numel, piece_elements(k)) if cut else info.numel
    return numel * (2 * info.dtype.itemsize + 4 * (k + 1) + own)


def tensor_costs(match: Match, choice: Choice, own: Mapping[int, float]) -> list[float]:
    """What every tensor that is merged costs, the dearest first; `own` has bytes per element by the id of a method."""
    k, infos = len(match.experts), ((match.base.tensors[name], choice(name)) for name in match.merged)
    found = (tensor_bytes(info, k, cut=bound.chunked, own=own.get(id(bound), A_SUM)) for info, bound in infos)
    return sorted(found, reverse=True)


def held_by(threads: int, costs: Sequence[float]) -> int:
    """The most that so many threads hold together."""
    together = costs[:threads]
    return round(max(together[0], min(sum(together), WHOLE_TENSORS_BYTES))) if together else 0


def threads_within(room: int, costs: Sequence[float]) -> int:
    """How many threads may merge so that all they hold together fits into `room`; at least one."""
    return next((n for n in range(default_threads(), 1, -1) if held_by(n, costs) <= room), 1)
