"""What learning minimises: labelled cross-entropy, or, without labels, entropy or the distance to the experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from supermerge.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Objective:
    """What an objective reads: labelled examples or inputs alone; and whether it aims at a target.

    Held-back examples tell about overfitting only where there is a target: certainty is none.
    """

    labelled: bool
    target: bool

    @property
    def taught(self) -> bool:
        """Whether the experts give the target, so that any input will do."""
        return self.target and not self.labelled


OBJECTIVES = {
    "cross_entropy": Objective(labelled=True, target=True),
    "entropy": Objective(labelled=False, target=False),
    "distill": Objective(labelled=False, target=True),
    "features": Objective(labelled=False, target=True),
}


def weighted_objectives(loss: str | Mapping[str, float]) -> dict[str, float]:
    """`cross_entropy`, or `{cross_entropy: 1, distill: 0.5}`, as weights by objective; unknown ones are refused."""
    weights = {loss: 1.0} if isinstance(loss, str) else dict(loss)
    for name, weight in weights.items():
        if name not in OBJECTIVES:
            raise RecipeError(f"loss: unknown objective {name!r}.", hint=f"Use {', '.join(OBJECTIVES)}.")
        if not weight > 0:
            raise RecipeError(f"loss.{name}: expected a weight above 0, found {weight}.")
    if not weights:
        raise RecipeError("loss: no objective is given.", hint=f"Use {', '.join(OBJECTIVES)}.")
    return weights


def entropy(logits: Tensor) -> Tensor:
    """Mean Shannon entropy −Σ p log p in nats of softmax(logits), over all but the last dimension.

    `logits` is `[n, classes]`. Source: AdaMerging, arXiv 2310.02575.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL(teacher ‖ student) in nats of two `[n, classes]` logits; mean squared error where there is one output.

    Source: Hinton et al., arXiv 1503.02531, at temperature 1.
    """
    if logits.shape[-1] == 1:
        return (logits.float() - teacher.float()).pow(2).mean()
    log_p = torch.log_softmax(logits.float(), dim=-1)
    log_q = torch.log_softmax(teacher.float(), dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def feature_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the examples of ‖z − z*‖² / ‖z*‖², z being the merged model's features and z* the expert's.

    Both are `[n, width]`. Relative, so that it means the same in every backbone and beside other objectives. Source:
    Representation Surgery (Yang et al., arXiv 2402.02705), which moves features towards the experts'. Departs from the
    paper: the squared distance instead of the absolute one, and coefficients learn instead of a module behind them.
    """
    z, target = features.float(), teacher.float()
    return ((z - target).pow(2).sum(-1) / target.pow(2).sum(-1).clamp(min=1e-12)).mean()
