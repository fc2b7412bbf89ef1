"""How much memory each phase of a run holds, from sizes alone: a model of our own code, checked by measuring."""

from __future__ import annotations

import torch

from supermerge.assemble import Choice
from supermerge.assemble.pieces import piece_elements
from supermerge.assemble.workers import default_threads
from supermerge.checkpoint import Match
from supermerge.methods import Bound, Context

# What the libraries of a phase take once loaded, measured on Linux with the versions in constraints/cpu.txt.
MODEL_CLASS_BYTES = 250_000_000
REPORT_BYTES = 220_000_000
# Whole tensors that are merged at the same time hold at most this together, unless one alone holds more.
_WHOLE_TENSORS_BYTES = 1 << 30


def merging_bytes(match: Match, choice: Choice) -> int:
    """Held while merging: per thread a piece of base, task vectors and intermediates, or whole tensors."""
    k, threads = len(match.experts), default_threads()
    piece = piece_elements(k)
    costs = []
    for name in match.merged:
        numel = match.base.tensors[name].numel
        costs.append((min(numel, piece) if choice(name).chunked else numel) * 4 * 2 * (k + 2))
    largest = sorted(costs, reverse=True)[: 2 * threads]
    return max(largest[0], min(sum(largest), _WHOLE_TENSORS_BYTES)) if largest else 0


def survey_passes(bound: Bound, k: int) -> int:
    """How often the method reads everything before it merges: counted by surveying one tiny tensor."""
    survey, passes = bound.survey(k, 4), 0
    ramp = torch.linspace(0.5, 1.5, 4)
    context = Context("weight", (4,), tuple(str(i) for i in range(k)))
    while survey is not None:
        passes += 1
        survey.observe(context, ramp, torch.stack([ramp * (i + 1) for i in range(k)]))
        if not survey.finish_pass():
            break
    return passes


def learning_bytes(match: Match, *, resident: bool) -> int:
    """Held while learning, activations not counted: the model, its gradients, and the largest tensor three times over.

    Weights and gradients are fp32. `resident` task vectors stay in memory as they are stored.
    """
    sizes = [match.base.tensors[name].numel * 4 for name in match.merged]
    held = 2 * sum(sizes) + 3 * max(sizes, default=0)
    return held + (experts_bytes(match) if resident else 0)


def experts_bytes(match: Match) -> int:
    """One reading of every expert's merged tensors, as they are stored."""
    return sum(source.tensors[name].nbytes for source in match.experts.values() for name in match.merged)
