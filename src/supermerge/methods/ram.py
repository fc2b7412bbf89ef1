"""RAM and RAM+: average what is shared, keep what is one expert's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.registry import Scope, method
from supermerge.methods.survey import Account, Survey, Totals
from supermerge.methods.transforms import summed

_PAPER = "https://arxiv.org/abs/2601.13572"
Small = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _active(taus: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """τ without elements of magnitude up to epsilon `[k, *shape]`, and how many experts are left per element."""
    kept = F.hardshrink(taus, epsilon)
    contributors = torch.zeros_like(taus[0])
    for tau in kept:
        contributors += torch.sign(tau).abs()
    return kept, contributors


def _process(base: Tensor, taus: Tensor, *, epsilon: float) -> list[Tensor]:
    """Every τᵢ shared with the others that changed the element."""
    kept, contributors = _active(taus, epsilon)
    return [tau / contributors.clamp(min=1) for tau in kept]


@method(
    "ram",
    scope="element",
    title="Reinforced agent merging (RAM)",
    paper=_PAPER,
    process=_process,
    cost="Reads every file once; memory of a few blocks.",
    use="Experts trained by reinforcement, whose changes are sparse and hardly overlap.",
    avoid="Dense task vectors: everything is shared, and the result is the mean.",
)
def ram(base: Tensor, taus: Tensor, *, epsilon: Small = 1e-5) -> Tensor:
    """The base plus, per element, the mean of the task vectors that changed it.

    θ = θp + Σᵢ τᵢ [|τᵢ| > epsilon] / (number of such experts): an element that one expert alone changed keeps its whole
    change, shared ones are averaged.
    """
    kept, contributors = _active(taus, epsilon)
    return base + summed(kept) / contributors.clamp(min=1)


class SharesSurvey(Survey):
    """Per expert, how many elements it alone changed and how many others changed too."""

    def __init__(self, k: int, epsilon: float) -> None:
        self._k, self._epsilon, self._totals = k, epsilon, Totals()

    def accounts(self) -> Sequence[Account]:
        """The counts."""
        return [self._totals]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Count in one piece."""
        kept, contributors = _active(taus, self._epsilon)
        alone = (2 - contributors).clamp(0, 1)
        for i, tau in enumerate(kept):
            changed = torch.sign(tau).abs()
            own = float((changed * alone).sum(dtype=torch.float64))
            self._totals.add(("own", i), own)
            self._totals.add(("shared", i), float(changed.sum(dtype=torch.float64)) - own)

    def finish_pass(self) -> bool:
        """One pass is enough."""
        return False

    def ratio(self, i: int) -> float:
        """Shared elements per own element of expert i."""
        return self._totals.of(("shared", i)) / max(self._totals.of(("own", i)), 1e-5)


def _survey(values: Mapping[str, Any], k: int) -> SharesSurvey:
    return SharesSurvey(k, values["epsilon"])


def _scope(values: Mapping[str, Any]) -> Scope:
    return values["per"]


@method(
    "ramplus",
    scope=_scope,
    title="Reinforced agent merging, rescaled (RAM+)",
    paper=_PAPER,
    survey=_survey,
    cost="Reads every file twice; memory of a few blocks. `per: tensor` reads only large tensors twice.",
    use="As `ram`, where an expert's own elements should make up for the averaged ones.",
    avoid="Dense task vectors, as `ram`.",
)
def ramplus(
    base: Tensor,
    taus: Tensor,
    *,
    survey: SharesSurvey,
    rate: Small = 0.1,
    limit: Small = 0.2,
    epsilon: Small = 1e-5,
    per: Literal["model", "tensor"] = "model",
) -> Tensor:
    """RAM, with an expert's own elements amplified the more of its elements are shared.

    As `ram`, but an element that expert i alone changed counts λᵢ = 1 + rate · min(ρᵢ, limit) times, ρᵢ = shared / own
    elements of expert i in the whole model, or in each tensor (`per: tensor`, mergekit's `ramplus_tl`). Verified
    against mergekit's tensor-local code; that the paper counts over the model is inferred from that name.
    """
    kept, contributors = _active(taus, epsilon)
    alone = (2 - contributors).clamp(0, 1)
    merged = torch.zeros_like(base)
    for i, tau in enumerate(kept):
        amplify = rate * min(survey.ratio(i), limit)
        merged += tau / contributors.clamp(min=1) + tau * alone * amplify
    return base + merged
