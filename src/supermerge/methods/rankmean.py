"""RankMean: trust the expert in whose ranking a layer changed more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.layers import layer_of
from supermerge.methods.parameters import Number
from supermerge.methods.registry import method
from supermerge.methods.survey import Account, Survey, Totals
from supermerge.methods.transforms import weighted_sum


class RankSurvey(Survey):
    """Per expert, the rank of every layer by how much it changed."""

    def __init__(self, k: int, per: str) -> None:
        self._k, self._per = k, per
        self._changes = Totals()
        self._ranks: list[dict[str, int]] = []

    def group(self, name: str) -> str | None:
        """The layer of a tensor, or the tensor itself; None for tensors outside numbered layers."""
        if self._per == "tensor":
            return name
        return layer_of(name)

    def accounts(self) -> Sequence[Account]:
        """The magnitudes."""
        return [self._changes]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Add the magnitudes of one piece."""
        group = self.group(context.name)
        if group is not None:
            self._changes.add(group, 0)
            for i, tau in enumerate(taus):
                self._changes.add_blocks((group, i), tau.abs())

    def finish_pass(self) -> bool:
        """One pass, then ranks from 1 for the least change; of equals the earlier name is smaller."""
        groups = [key for key in self._changes.keys if isinstance(key, str)]
        for i in range(self._k):
            order = sorted(groups, key=lambda group: (self._changes.of((group, i)), group))
            self._ranks.append({group: rank for rank, group in enumerate(order, 1)})
        return False

    def shares(self, name: str) -> list[float]:
        """[k]: rank / sum of ranks; equal outside layers."""
        group = self.group(name)
        ranks = [1 if group is None else of[group] for of in self._ranks]
        return [rank / sum(ranks) for rank in ranks]


def _survey(values: Mapping[str, Any], k: int) -> RankSurvey:
    return RankSurvey(k, values["per"])


@method(
    "rankmean",
    scope="model",
    title="RankMean",
    paper="https://aclanthology.org/2024.findings-acl.104",
    survey=_survey,
    cost="Reads every file twice; memory of a few blocks.",
    use="Two chat or code experts of one large model, when layers should go to whoever changed them most.",
    avoid="Tasks whose changes must add up: the weights of a layer sum to 1.",
)
def rankmean(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    survey: RankSurvey,
    per: Literal["layer", "tensor"] = "layer",
    scale: Number = 1.0,
) -> Tensor:
    """A weighted average per layer; an expert weighs by the rank of the layer among those it changed.

    rᵢ(l) = rank of layer l by Σ |τᵢ| over it, 1 for the least changed; θ = θp + scale · Σᵢ pᵢ τᵢ, pᵢ = rᵢ / Σ rᵢ;
    tensors outside numbered layers have equal shares. `per: tensor` ranks tensors.

    Departs from the paper: any number of experts (the authors' code takes two) and of layers (it expects forty).
    """
    return weighted_sum(base, taus, [scale * share for share in survey.shares(context.name)])
