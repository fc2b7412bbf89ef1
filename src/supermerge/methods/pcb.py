"""PCB-Merging: let parameters compete, inside a task and between tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.selection import Selection
from supermerge.methods.survey import Account, Largest, Survey
from supermerge.methods.transforms import summed

_TAILS = 1e-4


class CompetitionSurvey(Survey):
    """Per expert: the magnitudes at the tails, then the score to reach and the highest score."""

    def __init__(self, k: int, density: float) -> None:
        self._low = [Selection(partial(_from_below, _TAILS, 0)) for _ in range(k)]
        self._high = [Selection(partial(_from_below, 1 - _TAILS, 1)) for _ in range(k)]
        self._least = [Selection(partial(_from_below, 1 - density, 0), signed=True) for _ in range(k)]
        self._best = Largest()

    @property
    def _scoring(self) -> bool:
        return all(selection.done for selection in (*self._low, *self._high))

    def accounts(self) -> Sequence[Account]:
        """Magnitudes and scores."""
        return [*self._low, *self._high, *self._least, self._best]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Magnitudes in the first passes, scores in the last."""
        total = summed(taus)
        for i, tau in enumerate(taus):
            if not self._scoring:
                self._low[i].observe(tau)
                self._high[i].observe(tau)
            elif tau.numel():
                score = self.score(i, tau, total, len(taus))
                self._least[i].observe(score)
                self._best.add(i, float(score.max()))

    def finish_pass(self) -> bool:
        """Two passes for the tails, two for the scores."""
        stage = self._least if self._scoring else [*self._low, *self._high]
        again = [selection.finish_pass() for selection in stage]
        return any(again) or stage is not self._least

    def clamped(self, i: int, tau: Tensor) -> Tensor:
        """|τᵢ| without its tails."""
        return tau.abs().clamp(self._low[i].value, self._high[i].value)

    def score(self, i: int, tau: Tensor, total: Tensor, k: int) -> Tensor:
        """exp(k · minmax(|τᵢ|)²) · tanh(τᵢ Σ τ)."""
        low, high = self._low[i].value, self._high[i].value
        within = (self.clamped(i, tau) - low) / (high - low) if high > low else torch.zeros_like(tau)
        return torch.exp(k * (within * within)) * torch.tanh(tau * total)

    def weight(self, i: int, tau: Tensor, total: Tensor, k: int) -> Tensor:
        """The score between the one to reach (0, and below) and the highest (1)."""
        least, best = self._least[i].value, self._best.of(i)
        if best <= least:
            return torch.zeros_like(tau)
        return (self.score(i, tau, total, k).clamp(min=least) - least) / (best - least)


def _from_below(share: float, before: int, total: int) -> int:
    # The authors' code indexes the sorted values from below; here places count from the largest.
    return total - max(int(total * share - before), 0)


def _survey(values: Mapping[str, Any], k: int) -> CompetitionSurvey:
    return CompetitionSurvey(k, values["density"])


def _process(base: Tensor, taus: Tensor, *, survey: CompetitionSurvey) -> list[Tensor]:
    """wᵢ τᵢ / Σⱼ wⱼ, magnitudes clamped at their tails."""
    total = summed(taus)
    weights = [survey.weight(i, tau, total, len(taus)) for i, tau in enumerate(taus)]
    divisor = summed(weights).clamp(min=1e-12)
    return [torch.sign(tau) * survey.clamped(i, tau) * weights[i] / divisor for i, tau in enumerate(taus)]


@method(
    "pcb",
    scope="model",
    title="PCB-Merging",
    paper="https://arxiv.org/abs/2410.02396",
    survey=_survey,
    process=_process,
    cost="Five readings of every file; memory of a few blocks.",
    use="Several experts without data, when elements should compete rather than be cut by size alone.",
    avoid="Little disk bandwidth; results that should scale with the task vectors (its tanh depends on their size).",
)
def pcb(
    base: Tensor,
    taus: Tensor,
    *,
    survey: CompetitionSurvey,
    density: PositiveFraction = 0.1,
    scale: Number = 1.2,
) -> Tensor:
    """A mean of task vectors in which every element weighs by how it competes.

    Over the whole model: |τᵢ| is clamped at its 0.01 % tails; βᵢ = exp(k · minmax(|τᵢ|)²) · tanh(τᵢ Σⱼ τⱼ); weights
    are βᵢ, clamped from below so that the `density` share of largest scores counts, and scaled to [0, 1];
    θ = θp + scale · Σᵢ wᵢ τᵢ / Σᵢ wᵢ. Four readings of all checkpoints before the merge. The authors use densities of
    0.05 … 0.1 and scales around 1.2, tuned per task by evolution.
    """
    total = summed(taus)
    mixed, weights = torch.zeros_like(base), torch.zeros_like(base)
    for i, tau in enumerate(taus):
        weight = survey.weight(i, tau, total, len(taus))
        mixed += torch.sign(tau) * survey.clamped(i, tau) * weight
        weights += weight
    return base + scale * (mixed / weights.clamp(min=1e-12))
