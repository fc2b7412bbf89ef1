"""How much memory each phase of a run holds, from sizes alone: a model of our own code, checked by measuring."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from supermerge.accelerator import CPU, accelerator
from supermerge.assemble import Choice
from supermerge.assemble.footprint import held_by, tensor_costs, threads_within
from supermerge.checkpoint import Match
from supermerge.learn.granularity import group_of
from supermerge.methods import KINDS
from supermerge.methods.measured import own_shape
from supermerge.plan.rehearsal import bytes_per_element
from supermerge.report.vega import is_kept
from supermerge.statistics.budget import MATRICES_BYTES

OFFLOAD = "offload"
"""The residency that keeps the model's own weights on the disk too."""
SHARDED = "sharded"
"""The residency of several processes that hold the model together, each its rows."""

# What the libraries of a phase take once loaded, measured on Linux with the versions in constraints/cpu.txt.
_MODEL_CLASS_BYTES = 150_000_000
_PAGE_BYTES = 25_000_000
_ENGINE_BYTES = 155_000_000


@dataclass(frozen=True, slots=True)
class PlannedMerge:
    """One pass over the tensors: what `assemble` holds for each, with what its methods were seen to hold."""

    choice: Choice
    costs: tuple[float, ...]

    @classmethod
    def of(cls, match: Match, choice: Choice) -> PlannedMerge:
        """Every method is rehearsed on small tensors."""
        k = len(match.experts)
        own = {id(bound): bytes_per_element(bound, k) for bound in choice.bounds if bound.method.function is not None}
        return cls(choice, tuple(tensor_costs(match, choice, own)))

    def threads(self, room: int) -> int:
        """How many threads may merge within `room` bytes."""
        return threads_within(room, self.costs)

    def holds(self, room: int) -> int:
        """What they hold, at least what one needs."""
        return held_by(self.threads(room), self.costs)


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


def device_of(match: Match, residency: str | None) -> torch.device:
    """Where the tasks' model is computed: beside it gradients, as large, and activations must fit into a device."""
    return CPU if residency in (OFFLOAD, SHARDED) else accelerator(3 * model_bytes(match))


def sharded_bytes(match: Match, processes: int, *, tied: bool) -> int:
    """One process's rows of the model; embeddings that may be `tied` are held whole."""
    return model_bytes(match) // processes + (embedding_bytes(match) if tied else 0)


def embedding_bytes(match: Match) -> int:
    """The largest tensor outside numbered layers, in fp32."""
    outside = [info.numel for name, info in match.base.tensors.items() if not group_of(name, "layer")[-1:].isdigit()]
    return 4 * max(outside, default=0)


def gathered_bytes(match: Match) -> int:
    """Of a sharded model, while one of its blocks runs backward: the block's weights and gradients.

    Both twice, in one piece as they travel and cut into tensors; what the block before sent is let go after that.
    """
    blocks: Counter[str] = Counter()
    for name, info in match.base.tensors.items():
        blocks[group_of(name, "layer")] += info.numel * 4
    return 5 * max(blocks.values(), default=0)


def offloaded_bytes(match: Match) -> int:
    """Of a model whose weights lie in a file: the largest one, in fp32."""
    return max((info.numel * 4 for info in match.base.tensors.values()), default=0)
