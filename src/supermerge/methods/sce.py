"""SCE: select, calculate, erase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.selection import Selection
from supermerge.methods.survey import Account, Survey, Totals
from supermerge.methods.transforms import agree_mean, elect, keep_large, weighted


def variance(taus: Tensor) -> Tensor:
    """[*shape]: of every element over the experts; in fp64, so that equal ones stay equal in any order of experts."""
    mean = sum((tau.double() for tau in taus), torch.zeros_like(taus[0], dtype=torch.float64)) / len(taus)
    total = torch.zeros_like(mean)
    for tau in taus:
        total += (tau - mean) ** 2
    return (total / len(taus)).to(taus)


class SceSurvey(Survey):
    """The variance that selected elements reach, then the energy that each task vector has there."""

    def __init__(self, k: int, density: float) -> None:
        self._k, self._varying, self._energy = k, Totals(), Totals()
        self._everything = density == 1
        self._selection = Selection(lambda total: int(density * self._varying.of("elements")))

    @property
    def _selecting(self) -> bool:
        return not self._everything and not self._selection.done

    def accounts(self) -> Sequence[Account]:
        """Variances, and energies."""
        return [self._selection, self._varying, self._energy]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Variances first, energies in the last pass."""
        if self._selecting:
            spread = variance(taus)
            self._selection.observe(spread)
            self._varying.add("elements", int(torch.count_nonzero(spread)))
            return
        for i, tau in enumerate(self.selected(taus)):
            self._energy.add_blocks(i, tau * tau)

    def finish_pass(self) -> bool:
        """Two passes to select (none with density 1), one for the energies."""
        if self._selecting:
            if self._selection.finish_pass():
                self._varying = Totals()
            return True
        return False

    def selected(self, taus: Tensor) -> Tensor:
        """The task vectors where their variance is large enough, zero elsewhere."""
        if self._everything:
            return taus
        return taus * torch.sign(keep_large(variance(taus), self._selection.value))

    @property
    def weights(self) -> list[float]:
        """wᵢ ∝ Σ τᵢ², [k]; equal where all is zero."""
        energies = [self._energy.of(i) for i in range(self._k)]
        total = sum(energies)
        return [energy / total if total else 1 / self._k for energy in energies]


def _survey(values: Mapping[str, Any], k: int) -> SceSurvey:
    return SceSurvey(k, values["density"])


@method(
    "sce",
    scope="tensor",
    title="SCE merging (FuseChat)",
    paper="https://arxiv.org/abs/2408.07990",
    survey=_survey,
    cost="Small tensors are read once, large ones two to four times; memory of a few blocks.",
    use="Experts with complementary skills, weighted per tensor by how much they changed it, without choosing weights.",
    avoid="One expert that changed much more than the others: it takes over every tensor.",
)
def sce(
    base: Tensor, taus: Tensor, *, survey: SceSurvey, density: PositiveFraction = 1.0, scale: Number = 1.0
) -> Tensor:
    """The mean of the elements that differ most, weighted by the task vectors' energy, minority signs erased.

    Per tensor: τ̃ = τ at the `density` share of varying elements with the largest variance over the experts; wᵢ ∝ Σ τ̃ᵢ²;
    γ = sign(Σᵢ τ̃ᵢ), + for zero; θ = θp + scale · Σ {wᵢ τ̃ᵢ : sign τ̃ᵢ = γ} / Σ {wᵢ : sign τ̃ᵢ = γ}.

    Departs from mergekit: that uses equal weights where the mean squares of all experts together are below 1e-6, as
    they are in most fine-tuned models.
    """
    kept, w = survey.selected(taus), survey.weights
    return base + scale * agree_mean(weighted(kept, w), elect(kept, tie=1), w)
