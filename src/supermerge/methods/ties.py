"""TIES: trim, elect a sign, merge what agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Fractions, Number, Weights, per_expert
from supermerge.methods.registry import Scope, method
from supermerge.methods.survey import Account, MagnitudeSurvey, Totals
from supermerge.methods.transforms import agree_mean, agree_sum, agreeing, elect, keep_large, summed, weighted


class TiesSurvey(MagnitudeSurvey):
    """Per expert the magnitude to reach, then the sign that most coordinates of the trimmed sum have."""

    def __init__(self, wanted: Sequence[Callable[[int], int]], weights: Sequence[float], vote: bool) -> None:
        super().__init__(wanted)
        self._votes = Totals()
        self._weights, self._vote, self._voting = weights, vote, False

    def accounts(self) -> Sequence[Account]:
        """The counts of every expert, and the votes."""
        return [*self._selections, self._votes]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Count magnitudes, in the last pass signs."""
        if not self._voting:
            super().observe(context, base, taus)
            return
        total = summed(trimmed(taus, self.thresholds, self._weights))
        self._votes.add("signs", float(torch.sign(total).sum(dtype=torch.float64)))

    def tie(self, zero_sign: str) -> int:
        """The sign of a sum that is exactly zero."""
        return 1 if zero_sign == "positive" or self._votes.of("signs") > 0 else -1

    def finish_pass(self) -> bool:
        """Passes for the thresholds, usually one, then one for the vote."""
        if self._voting:
            return False
        self._voting = not super().finish_pass() and self._vote
        return self._voting or not self.done


def trimmed(taus: Tensor, thresholds: Sequence[float], weights: Sequence[float]) -> list[Tensor]:
    """[wᵢ trim(τᵢ)], k tensors."""
    return weighted([keep_large(tau, least) for tau, least in zip(taus, thresholds, strict=True)], weights)


def _survey(values: Mapping[str, Any], k: int) -> TiesSurvey:
    # Over the model the authors' code keeps one element more than int(density · numel).
    extra = 1 if values["trim"] == "model" else 0
    wanted = [partial(_kept, share, extra) for share in per_expert(values["density"], k)]
    return TiesSurvey(wanted, values["weights"] or (1.0,) * k, values["zero_sign"] == "majority")


def _kept(density: float, extra: int, total: int) -> int:
    return min(total, int(density * total) + extra) if density else 0


def _scope(values: Mapping[str, Any]) -> Scope:
    return "model" if values["trim"] == "model" else "tensor"


def _process(
    base: Tensor, taus: Tensor, *, survey: TiesSurvey, zero_sign: Literal["positive", "majority"]
) -> list[Tensor]:
    """Every trimmed τ̃ᵢ with only the elements that have the elected sign."""
    large = trimmed(taus, survey.thresholds, (1.0,) * len(taus))
    return agreeing(large, elect(large, tie=survey.tie(zero_sign)))


@method(
    "ties",
    scope=_scope,
    title="TIES-Merging",
    paper="https://arxiv.org/abs/2306.01708",
    survey=_survey,
    process=_process,
    cost="Two readings of every file, four where a sample misleads, one more with `zero_sign: majority`; memory of a "
    "few blocks. With `trim: tensor` only large tensors are read again.",
    use="Several experts of different tasks without any data: usually better than task arithmetic, and robust to its "
    "scale.",
    avoid="Experts with dense, small changes, where most of what is trimmed matters: raise `density`, or use a "
    "spectral method.",
)
def ties(
    base: Tensor,
    taus: Tensor,
    *,
    survey: TiesSurvey,
    weights: Weights = None,
    density: Fractions = 0.2,
    scale: Number = 1.0,
    trim: Literal["model", "tensor"] = "model",
    merge: Literal["mean", "sum"] = "mean",
    zero_sign: Literal["positive", "majority"] = "positive",
) -> Tensor:
    """Keep the large elements, elect a sign per coordinate, merge the elements that have it.

    τ̃ᵢ = the `density` largest elements of τᵢ by magnitude, over the whole model (`trim: model`, the paper) or tensor
    by tensor; γ = sign(Σᵢ wᵢ τ̃ᵢ); θ = θp + scale · mean {τ̃ᵢ : sign τ̃ᵢ = γ}, weighted by `weights`; `merge: sum` adds
    instead. Elements as large as the smallest one kept are kept too, so a little more than `density` may stay. As in
    the authors' code `trim: model` keeps int(density · d) + 1 of d elements; `trim: tensor` keeps int(density · d).

    Departs from the paper: where the sum is exactly zero γ is +. `zero_sign: majority` is the authors' rule, the sign
    of most coordinates (− for a draw), which with `trim: model` costs one more reading of every checkpoint.
    """
    w = list(weights or (1.0,) * len(taus))
    large = trimmed(taus, survey.thresholds, w)
    sign = elect(large, tie=survey.tie(zero_sign))
    change = agree_mean(large, sign, w) if merge == "mean" else agree_sum(large, sign)
    return change.mul_(scale).add_(base)
