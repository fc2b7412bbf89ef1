"""Model Breadcrumbs: keep neither the small elements nor the outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Fraction, Fractions, Number, Weights, per_expert
from supermerge.methods.ranking import as_rows, ranks
from supermerge.methods.registry import method
from supermerge.methods.survey import MagnitudeSurvey, Survey
from supermerge.methods.task_arithmetic import scaled
from supermerge.methods.transforms import Taus, agree_sum, agreeing, elect, keep_large, weighted, weighted_sum

_PAPER = "https://arxiv.org/abs/2312.06795"
Along = Literal["row", "tensor"]


class BandSurvey(Survey):
    """Per expert, the magnitudes between which the elements lie that stay."""

    def __init__(self, densities: Sequence[float], gamma: float) -> None:
        self.least = MagnitudeSurvey([partial(_reach, density, gamma) for density in densities])
        self.outliers = MagnitudeSurvey([partial(_top, density, gamma) for density in densities])

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Count the magnitudes of one piece."""
        self.least.observe(context, base, taus)
        self.outliers.observe(context, base, taus)

    def finish_pass(self) -> bool:
        """Two passes."""
        again = (self.least.finish_pass(), self.outliers.finish_pass())
        return any(again)


def _top(density: float, gamma: float, total: int) -> int:
    # Fewer outliers go where not enough elements would be left.
    return min(int(gamma * total), total - int(density * total))


def _reach(density: float, gamma: float, total: int) -> int:
    return _top(density, gamma, total) + int(density * total)


def _survey(values: Mapping[str, Any], k: int) -> BandSurvey | None:
    return BandSurvey(per_expert(values["density"], k), values["gamma"]) if values["along"] == "tensor" else None


def crumbs(base: Tensor, taus: Tensor, *, survey: BandSurvey | None, density: Fractions, gamma: float) -> Taus:
    """Every τᵢ without its `gamma` largest elements and with the `density` next largest ones, zero elsewhere."""
    if survey is not None:
        limits = zip(taus, survey.least.thresholds, survey.outliers.thresholds, strict=True)
        return [keep_large(tau, low) - keep_large(tau, high) for tau, low, high in limits]
    if taus.ndim == 1:
        return taus
    out = []
    for tau, share in zip(taus, per_expert(density, len(taus)), strict=True):
        rows = as_rows(tau)
        n = rows.shape[1]
        place = ranks(rows)
        high = n - int(n * gamma)
        out.append((rows * (place < high) * (place >= high - int(n * share))).view(tau.shape))
    return out


def _agreeing(
    base: Tensor, taus: Tensor, *, survey: BandSurvey | None, density: Fractions, gamma: float
) -> list[Tensor]:
    """Every τ̃ᵢ with only the elements that have the elected sign."""
    kept = crumbs(base, taus, survey=survey, density=density, gamma=gamma)
    return agreeing(kept, elect(kept, tie=1))


@method(
    "breadcrumbs",
    scope="tensor",
    title="Model Breadcrumbs",
    paper=_PAPER,
    survey=_survey,
    process=crumbs,
    cost="Reads every file once; whole tensors in memory; ranks every row. `along: tensor` needs a few blocks, and "
    "reads large tensors up to three times.",
    use="Many experts, with both noise and outliers in their task vectors; its settings carry over to more tasks well.",
    avoid="Experts whose few large changes are the skill: those go first. Set `gamma: 0`, or use `ties`.",
)
def breadcrumbs(
    base: Tensor,
    taus: Tensor,
    *,
    survey: BandSurvey | None,
    weights: Weights = None,
    density: Fractions = 0.15,
    gamma: Fraction = 0.01,
    along: Along = "row",
    scale: Number | None = None,
) -> Tensor:
    """Task arithmetic on task vectors without their largest and their small elements.

    In every row of n elements (along the last dimension) the int(n · gamma) largest magnitudes go, and of the rest
    the int(n · density) largest stay; θ = θp + scale · Σᵢ wᵢ τ̃ᵢ. `along: tensor` takes whole tensors as mergekit
    does, where ties at the edges stay together. Scalars are kept. Without weights every coefficient is `scale`, 0.3
    by default; with weights `scale` is 1.
    """
    kept = crumbs(base, taus, survey=survey, density=density, gamma=gamma)
    return weighted_sum(base, kept, scaled(weights, scale, len(taus), 0.3))


@method(
    "breadcrumbs_ties",
    scope="tensor",
    title="Model Breadcrumbs with sign election",
    paper=_PAPER,
    survey=_survey,
    process=_agreeing,
    cost="As `breadcrumbs`.",
    use="As `breadcrumbs`, where experts also conflict in sign.",
    avoid="As `breadcrumbs`.",
)
def breadcrumbs_ties(
    base: Tensor,
    taus: Tensor,
    *,
    survey: BandSurvey | None,
    weights: Weights = None,
    density: Fractions = 0.15,
    gamma: Fraction = 0.01,
    along: Along = "row",
    scale: Number | None = None,
) -> Tensor:
    """Breadcrumbs, then only the elements that have the elected sign.

    τ̃ᵢ as in `breadcrumbs`; γ = sign(Σᵢ wᵢ τ̃ᵢ), + for zero; θ = θp + scale · Σ {wᵢ τ̃ᵢ : sign τ̃ᵢ = γ}. A combination of
    mergekit's. Without weights every coefficient is `scale`, 0.3 by default; with weights `scale` is 1.
    """
    kept = crumbs(base, taus, survey=survey, density=density, gamma=gamma)
    kept = weighted(kept, scaled(weights, scale, len(taus), 0.3))
    return base + agree_sum(kept, elect(kept, tie=1))
