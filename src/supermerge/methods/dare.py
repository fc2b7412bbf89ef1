"""DARE: drop elements of the task vectors at random and rescale the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import DropRates, Number, Weights, per_expert
from supermerge.methods.registry import Scope, method
from supermerge.methods.survey import Survey, Totals
from supermerge.methods.task_arithmetic import scaled
from supermerge.methods.transforms import agree_mean, agree_sum, agreeing, elect, weighted, weighted_sum

_PAPER = "https://arxiv.org/abs/2311.03099"


Rescale = Literal["probability", "l1"]


class KeptSurvey(Survey):
    """Per expert, the magnitude of a tensor before and after the drop."""

    def __init__(self, k: int, drop: DropRates) -> None:
        self._drop, self._before, self._after = per_expert(drop, k), Totals(), Totals()

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Drop in one piece, and add up."""
        for i, (tau, p) in enumerate(zip(taus, self._drop, strict=True)):
            self._before.add_blocks(i, tau.abs())
            self._after.add_blocks(i, (tau * context.bernoulli("dare", i, 1 - p, tau)).abs())

    def finish_pass(self) -> bool:
        """One pass is enough."""
        return False

    def factor(self, i: int) -> float:
        """What restores the magnitude of expert i; 1 where nothing is left."""
        left = self._after.of(i)
        return self._before.of(i) / left if left else 1.0


def _survey(values: Mapping[str, Any], k: int) -> KeptSurvey | None:
    return KeptSurvey(k, values["drop"]) if values["rescale"] == "l1" else None


def _scope(values: Mapping[str, Any]) -> Scope:
    return "tensor" if values["rescale"] == "l1" else "element"


def thinned(
    base: Tensor, taus: Tensor, *, context: Context, survey: KeptSurvey | None, drop: DropRates
) -> list[Tensor]:
    """τ̂ᵢ = mᵢ τᵢ / (1 − pᵢ), elements kept with probability 1 − pᵢ, so that E[τ̂ᵢ] = τᵢ; or rescaled by `survey`."""
    dropped = []
    for i, (tau, p) in enumerate(zip(taus, per_expert(drop, len(taus)), strict=True)):
        factor = 1 / (1 - p) if survey is None else survey.factor(i)
        dropped.append(context.bernoulli("dare", i, 1 - p, tau).mul_(tau * factor) if p else tau)
    return dropped


def _agreeing(
    base: Tensor, taus: Tensor, *, context: Context, survey: KeptSurvey | None, drop: DropRates
) -> list[Tensor]:
    """Every τ̂ᵢ with only the elements that have the elected sign."""
    dropped = thinned(base, taus, context=context, survey=survey, drop=drop)
    return agreeing(dropped, elect(dropped, tie=1))


@method(
    "dare_linear",
    scope=_scope,
    title="DARE with task arithmetic",
    paper=_PAPER,
    survey=_survey,
    process=thinned,
    aliases=("dare",),
    cost="Reads every file once; most of the time goes into random draws; memory of a few blocks. `rescale: l1` reads "
    "large tensors twice.",
    use="Thinning experts whose changes are small (|τ| below about 0.03), where nine of ten elements can go.",
    avoid="Large changes, as after continued pre-training, which the rescaling blows up; results that must not depend "
    "on a seed.",
)
def dare_linear(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    survey: KeptSurvey | None,
    weights: Weights = None,
    drop: DropRates = 0.9,
    rescale: Rescale = "probability",
    scale: Number | None = None,
) -> Tensor:
    """Task arithmetic on thinned task vectors.

    τ̂ᵢ = mᵢ ⊙ τᵢ / (1 − drop), mᵢ ~ Bernoulli(1 − drop) per element; θ = θp + scale · Σᵢ wᵢ τ̂ᵢ. Without weights every
    coefficient is `scale`, 0.3 by default; with weights `scale` is 1. Works while task vectors are small (|τ| below
    about 0.03, says the paper); `drop: 0` is task arithmetic. `rescale: l1` restores the sum of magnitudes of every
    tensor instead of dividing by 1 − drop, as mergekit does.
    """
    dropped = thinned(base, taus, context=context, survey=survey, drop=drop)
    return weighted_sum(base, dropped, scaled(weights, scale, len(taus), 0.3))


@method(
    "dare_ties",
    scope=_scope,
    title="DARE with sign election",
    paper=_PAPER,
    survey=_survey,
    process=_agreeing,
    cost="Reads every file once; most of the time goes into random draws; memory of a few blocks. `rescale: l1` reads "
    "large tensors twice.",
    use="As `dare_linear`, where experts also conflict in sign.",
    avoid="As `dare_linear`; one published comparison saw it do worst on tasks that no expert was trained for.",
)
def dare_ties(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    survey: KeptSurvey | None,
    weights: Weights = None,
    drop: DropRates = 0.9,
    rescale: Rescale = "probability",
    scale: Number = 1.0,
    merge: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """TIES on thinned task vectors: the random drop takes the place of the trim.

    τ̂ᵢ as in `dare_linear`; γ = sign(Σᵢ wᵢ τ̂ᵢ), + for a sum of zero; θ = θp + scale · mean {τ̂ᵢ : sign τ̂ᵢ = γ},
    weighted by `weights` (1 each by default). `merge: sum` adds instead. `drop: 0` is `ties` with
    `density: 1` and `zero_sign: positive`.
    """
    w = list(weights or (1.0,) * len(taus))
    dropped = weighted(thinned(base, taus, context=context, survey=survey, drop=drop), w)
    sign = elect(dropped, tie=1)
    change = agree_mean(dropped, sign, w) if merge == "mean" else agree_sum(dropped, sign)
    return change.mul_(scale).add_(base)
