"""LARV: weaken layers whose changes disturb, strengthen layers whose changes are structured, before any merge."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.inner import MERGES, plain
from supermerge.methods.layers import layer_of
from supermerge.methods.parameters import Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import NAMED_PROJECTIONS, is_matrix
from supermerge.methods.survey import Account, Survey, Totals


def effective_rank(gram: Tensor) -> float:
    """exp(−Σ p log p) of a matrix A with Gram matrix `gram [n, n]`, p = σ² / ‖A‖²."""
    energies = torch.linalg.eigvalsh(gram).clamp(min=0)
    shares = energies / energies.sum()
    return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def conflict(base: Tensor, tau: Tensor) -> float:
    """½ (‖θp τᵀ − τ θpᵀ‖ + ‖θpᵀ τ − τᵀ θp‖) / (‖θp‖ ‖τ‖) of `[m, n]` matrices with m ≥ n, by products of n × n."""
    cross = base.T @ tau
    # ‖θp τᵀ − τ θpᵀ‖² = 2 tr(θpᵀ θp τᵀ τ) − 2 tr(θpᵀ τ θpᵀ τ).
    far = 2 * ((base.T @ base) * (tau.T @ tau)).sum() - 2 * (cross * cross.T).sum()
    near = (cross - cross.T).norm()
    return 0.5 * float(far.clamp(min=0).sqrt() + near) / float(base.norm() * tau.norm())


class LayerSurvey(Survey):
    """Per layer and expert, whether the task vector is to be weakened, kept or strengthened there."""

    def __init__(self, k: int, low: float, high: float) -> None:
        self._k, self._tiers, self._totals = k, (low, high), Totals()
        self._scales: list[dict[str, float]] = []

    def accounts(self) -> Sequence[Account]:
        """What was diagnosed."""
        return [self._totals]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Diagnose one matrix of a layer."""
        layer = layer_of(context.name)
        if layer is None or not is_matrix(context, ()) or not torch.count_nonzero(base):
            return
        self._totals.add(layer, 1)
        tall = base.shape[0] >= base.shape[1]
        first = base.double() if tall else base.double().T
        rank = effective_rank(first.T @ first)
        for i, tau in enumerate(taus.double()):
            if torch.count_nonzero(tau):
                change = tau if tall else tau.T
                self._totals.add(("matrices", layer, i), 1)
                self._totals.add(("contrast", layer, i), rank / effective_rank(change.T @ change))
                self._totals.add(("conflict", layer, i), conflict(first, change))

    def finish_pass(self) -> bool:
        """One pass, then the tiers."""
        self._scales = [self._tiers_of(i) for i in range(self._k)]
        return False

    def scale(self, i: int, name: str) -> float:
        """What to multiply task vector i by in the tensor called `name`: 1 outside numbered layers."""
        return self._scales[i].get(layer_of(name) or "", 1.0)

    def _tiers_of(self, i: int) -> dict[str, float]:
        known = [key for key in self._totals.keys if isinstance(key, str)]
        counts = {layer: self._totals.of(("matrices", layer, i)) for layer in known}
        layers = sorted(layer for layer, count in counts.items() if count)
        if not layers:
            return {}
        contrasts, conflicts = (
            torch.tensor([self._totals.of((what, layer, i)) / counts[layer] for layer in layers], dtype=torch.float64)
            for what in ("contrast", "conflict")
        )
        spread = float(conflicts.std(correction=0))
        standardised = (conflicts - conflicts.mean()) / spread if spread > 1e-8 else torch.zeros_like(conflicts)
        depths = torch.tensor([depth(layer, known) for layer in layers], dtype=torch.float64)
        scores = contrasts * depths.sqrt() / (1 + F.softplus(standardised))
        lower, upper = torch.quantile(scores, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)).tolist()
        low, high = self._tiers
        found = zip(layers, scores.tolist(), strict=True)
        return {layer: low if score < lower else high if score > upper else 1.0 for layer, score in found}


def depth(layer: str, layers: Collection[str]) -> float:
    """How deep a layer lies among those of its stack (`encoder.layer.0`, `encoder.layer.1`, …): 1 for the last one."""
    stacks: defaultdict[str, list[int]] = defaultdict(list)
    for each in layers:
        stack, _, number = each.rpartition(".")
        stacks[stack].append(int(number))
    stack, _, number = layer.rpartition(".")
    return sum(other <= int(number) for other in stacks[stack]) / len(stacks[stack])


def _survey(values: Mapping[str, Any], k: int) -> LayerSurvey:
    return LayerSurvey(k, values["low"], values["high"])


@method(
    "larv",
    scope="model",
    title="Layer-wise rescaling (LARV)",
    paper="https://arxiv.org/abs/2602.09413",
    survey=_survey,
    whole=True,
    cost="Reads every file twice; k + 1 decompositions per matrix beside those of the inner merge; whole tensors in "
    "memory.",
    use="On top of another merge of deep models, when first layers suffer most from merging.",
    avoid="Models without numbered layers, where it does nothing; as a faithful baseline, because its tiers are our "
    "reading of the paper.",
)
def larv(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    survey: LayerSurvey,
    merge: Literal["sum", "mean", "tsv_m", "iso_c"] = "iso_c",
    low: Number = 0.75,
    high: Number = 1.25,
    scale: Number = 1.0,
    exclude: tuple[str, ...] = NAMED_PROJECTIONS,
) -> Tensor:
    """Another merge of task vectors that are weakened in some layers and strengthened in others, without data.

    For every matrix of a numbered layer: e = r(θp) / r(τᵢ), r = exp(entropy of the shares of the squared singular
    values); c = ½ (‖θp τᵢᵀ − τᵢ θpᵀ‖ + ‖θpᵀ τᵢ − τᵢᵀ θp‖) / (‖θp‖ ‖τᵢ‖); both averaged over the layer. Its score is
    e · √d / (1 + softplus(c̃)), d its depth from 1/L to 1, c̃ its c standardised over the layers. Task vector i is
    multiplied by `low` in the third of the layers with the lowest scores and by `high` in the third with the highest;
    θ = θp + scale · merge(…). Tensors that are no matrices, and those matched by `exclude`, take the mean (the sum for
    `merge: sum`).

    The diagnostics and the score are known at second hand; that matrices are averaged over a layer, that tiers are
    thirds, and the values of `low` and `high` are our reading, and nothing was checked against the authors' code.
    """
    scaled = torch.stack([tau * survey.scale(i, context.name) for i, tau in enumerate(taus)])
    if not is_matrix(context, exclude):
        return base + scale * plain(scaled, merge)
    return base + scale * MERGES[merge](scaled)
