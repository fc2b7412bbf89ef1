"""Whether experts look fine-tuned from the base, and weights like weights: nonsense averages to nonsense, silently."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from supermerge.assemble import Geometry
from supermerge.checkpoint import Buffer, Match
from supermerge.errors import CheckpointError

_SAMPLE = 16_384
# Fine-tuning moves weights by 1 to 30 % of their norm; two independent models differ by about √2 of it.
_UNRELATED = 1.0
# Far above the norm of any trained tensor, far below what a flipped exponent bit makes of one of its values.
_ABSURD = 1e10


def distances(match: Match) -> dict[str, float]:
    """‖τᵢ‖ / ‖θp‖ per expert, over the first 16,384 elements of every merged tensor; 0 for a base of zeros."""
    squares = dict.fromkeys(match.experts, 0.0)
    total = 0.0
    buffers = Buffer(), Buffer()
    for name in match.merged:
        count = min(_SAMPLE, match.base.tensors[name].numel)
        base = match.base.read_flat(name, 0, count, buffer=buffers[0]).double()
        total += float(base.dot(base))
        for expert, source in match.experts.items():
            tau = source.read_flat(name, 0, count, buffer=buffers[1]).double() - base
            square = float(tau.dot(tau))
            # What is not finite is for others to find, and to name.
            squares[expert] += square if math.isfinite(square) else float(tau[torch.isfinite(tau)].pow(2).sum())
    return {expert: math.sqrt(square / total) if total else 0.0 for expert, square in squares.items()}


def require_related(match: Match, experts: Collection[str] | None = None) -> None:
    """CheckpointError for experts (those named, or all) that are farther from the base than fine-tuning takes one."""
    asked = match.experts if experts is None else experts
    far = {name: distance for name, distance in distances(match).items() if distance > _UNRELATED and name in asked}
    if far:
        listed = ", ".join(f"{expert} ({distance:.3g})" for expert, distance in far.items())
        raise CheckpointError(
            f"Not fine-tuned from the base {match.base.label}, by the look of their weights: {listed}. Their distance "
            f"from it, as a share of its norm, is usually 0.01 to 0.3.",
            hint="Name the model that the experts were trained from, or merge with `supermerge run --allow-unrelated`.",
        )


def require_plausible(geometry: Geometry, match: Match) -> None:
    """CheckpointError, naming the tensor, where base or a task vector has values that no training gives."""
    labels = [match.base.label, *(source.label for source in match.experts.values())]
    for name, gram in geometry.grams.items():
        norms = math.sqrt(geometry.base[name]), *gram.diagonal().sqrt().tolist()
        for label, norm in zip(labels, norms, strict=True):
            if not norm < _ABSURD:
                raise CheckpointError(
                    f"{label}: tensor {name!r} has absurdly large values: its norm, as a difference from the base for "
                    f"an expert, is {norm:.3g}; expected is less than {_ABSURD:.0e}.",
                    hint="The file is damaged: copy or download it again, and compare its hash with the one published.",
                )
