"""How much memory each phase of a run holds, from sizes alone: a model of our own code, checked by measuring."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from supermerge.assemble import Choice
from supermerge.assemble.pieces import piece_elements
from supermerge.assemble.workers import default_threads
from supermerge.checkpoint import Match
from supermerge.methods import KINDS
from supermerge.methods.measured import own_shape
from supermerge.plan.rehearsal import bytes_per_element
from supermerge.report.vega import is_kept
from supermerge.statistics.budget import MATRICES_BYTES

# What the libraries of a phase take once loaded, measured on Linux with the versions in constraints/cpu.txt.
_MODEL_CLASS_BYTES = 150_000_000
_PAGE_BYTES = 25_000_000
_ENGINE_BYTES = 155_000_000
# Whole tensors that are merged at the same time hold at most this together, unless one alone holds more.
_WHOLE_TENSORS_BYTES = 1 << 30


def merging_bytes(match: Match, choice: Choice) -> int:
    """Held while merging: per thread two read buffers, the fp32 rows of base and task vectors, and the method's own."""
    k, threads = len(match.experts), default_threads()
    own = {id(bound): bytes_per_element(bound, k) for bound in choice.bounds if bound.method.function is not None}
    costs: list[float] = []
    for name in match.merged:
        info, bound = match.base.tensors[name], choice(name)
        numel = min(info.numel, piece_elements(k)) if bound.chunked else info.numel
        costs.append(numel * (2 * info.dtype.itemsize + 4 * (k + 1) + own.get(id(bound), 8)))
    together = sorted(costs, reverse=True)[:threads]
    return round(max(together[0], min(sum(together), _WHOLE_TENSORS_BYTES))) if together else 0


def stored_statistics_bytes(match: Match, kinds: Sequence[str]) -> int:
    """What statistics of one expert take in fp32: a matrix may belong to every weight of two dimensions."""
    tensors = [match.base.tensors[name].shape for name in match.merged]
    shapes = [own_shape(kind, shape) for kind in kinds for shape in tensors]
    return sum(4 * math.prod(shape) for shape in shapes if shape is not None)


def statistics_bytes(match: Match, kinds: Sequence[str]) -> int:
    """Held while measuring, beside the model and its activations: one kind at a time, and gradients where it has some.

    Matrices are measured as many at a time as fit into the budget.
    """
    tensors = [match.base.tensors[name] for name in match.merged]
    most = 0
    for kind in kinds:
        if KINDS[kind].side in ("elements", "tensor"):
            most = max(most, 2 * 4 * sum(info.numel for info in tensors))
        elif KINDS[kind].side in ("inputs", "outputs"):
            shapes = [own_shape(kind, info.shape) for info in tensors]
            sizes = [4 * math.prod(shape) for shape in shapes if shape is not None]
            most = max(most, min(sum(sizes), MATRICES_BYTES), max(sizes, default=0))
    return most


def report_bytes(*, pictures: bool) -> int:
    """Held while writing the page and the card; `pictures` where something is scored or learned.

    The engine that draws them also makes the page's script, where the cache has none yet.
    """
    return _PAGE_BYTES + (_ENGINE_BYTES if pictures or not is_kept() else 0)


def model_class_bytes() -> int:
    """What loading the model classes will add to this process: nothing where they are loaded already."""
    return 0 if "transformers.modeling_utils" in sys.modules else _MODEL_CLASS_BYTES


def model_bytes(match: Match) -> int:
    """The model in memory, in fp32."""
    return sum(info.numel * 4 for info in match.base.tensors.values())
