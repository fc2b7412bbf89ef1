"""NeuroMerging: merge what a neuron's weights do along and across their own direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.survey import Account, MagnitudeSurvey, Totals
from supermerge.methods.transforms import Taus, agree_mean, elect, keep_large


class TrimSurvey(MagnitudeSurvey):
    """Per expert the magnitude to reach, then how much of its task vector reaches it."""

    def __init__(self, k: int, density: float, measure: bool) -> None:
        super().__init__([partial(_kept, density) for _ in range(k)])
        self._before, self._after = Totals(), Totals()
        self._k, self._measure = k, measure

    def accounts(self) -> Sequence[Account]:
        """Magnitudes, and their sums."""
        return [*self._selections, self._before, self._after]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Magnitudes, in the last pass their sums."""
        if not self.done:
            super().observe(context, base, taus)
            return
        for i, (tau, kept) in enumerate(zip(taus, self.trimmed(taus), strict=True)):
            self._before.add_blocks(i, tau.abs())
            self._after.add_blocks(i, kept.abs())

    def finish_pass(self) -> bool:
        """Two passes for the magnitudes, one for the sums where they are asked for."""
        if self.done:
            return False
        return super().finish_pass() or self._measure

    def trimmed(self, taus: Tensor) -> list[Tensor]:
        """Every τᵢ without its small elements, k tensors."""
        return [keep_large(tau, least) for tau, least in zip(taus, self.thresholds, strict=True)]

    @property
    def amplification(self) -> float:
        """1 / (1 − σ), σ the largest share of magnitude that trimming took from an expert."""
        pairs = [(self._before.of(i), self._after.of(i)) for i in range(self._k)]
        left = min((after / before for before, after in pairs if before), default=1.0)
        return 1 / left if left else 1.0


def _kept(density: float, total: int) -> int:
    return min(total, int(density * total) + 1)


def _survey(values: Mapping[str, Any], k: int) -> TrimSurvey:
    return TrimSurvey(k, values["density"], measure=values["across"] is None)


def elected_mean(values: Taus) -> Tensor:
    """[k, …] → […]: the mean of the values that have the sign of their sum, + for zero."""
    return agree_mean(values, elect(values, tie=1), [1.0] * len(values))


@method(
    "neuromerging",
    scope="model",
    title="NeuroMerging",
    paper="https://arxiv.org/abs/2503.05320",
    survey=_survey,
    whole=True,
    cost="Four readings of every file (three with `across` given), whole tensors in memory, one small SVD per output "
    "row.",
    use="Several experts without data, when changes along a neuron's own weights should be told from new directions.",
    avoid="Very large models (slow), and experts whose rows change in equal, mirrored ways: the coordinates are then "
    "arbitrary.",
)
def neuromerging(
    base: Tensor,
    taus: Tensor,
    *,
    survey: TrimSurvey,
    density: PositiveFraction = 0.1,
    along: Number = 0.0,
    across: Number | None = None,
) -> Tensor:
    """Trim, split every neuron's change into a part along its weights and a part across, merge both by elected signs.

    For every row w of a base tensor with two dimensions or more: τ∥ = ⟨τ, w⟩ w / ‖w‖², merged by the elected mean of
    its k coefficients; τ⊥ = τ − τ∥, expressed in the right singular vectors of the k × n stack, elected mean per
    coordinate; θ = θp + along · τ∥ + across · τ⊥. Vectors take the elected mean of the trimmed values, times
    `across`. Trimming keeps the `density` largest magnitudes over the model. `across` defaults to 1 / (1 − σ), σ the
    largest share of ‖τᵢ‖₁ that trimming took, and `along` to 0, the paper's choice without validation data.

    Where two singular values of a stack are equal, its coordinates, and with them the merge, depend on the order of the
    experts.

    Departs from the authors' code: the part along w is scaled by w, not by w / ‖w‖; a sum of zero counts as +, except
    in the coordinates, whose signs are arbitrary: there it adds nothing. How they scale vectors, and σ, are our
    reading.
    """
    scale = survey.amplification if across is None else across
    trimmed = survey.trimmed(taus)
    if base.ndim < 2:
        return base + scale * elected_mean(trimmed)
    w = base.reshape(len(base), -1).double()
    rows = torch.stack(trimmed).reshape(len(taus), *w.shape).double()
    shares = (rows * w).sum(-1) / (w * w).sum(-1).clamp(min=1e-300)
    beyond = rows - shares[:, :, None] * w
    merged = along * elected_mean(shares)[:, None] * w + scale * _across(beyond.transpose(0, 1))
    return base + merged.view(base.shape).to(base)


def _across(rows: Tensor) -> Tensor:
    """[rows, k, n] → [rows, n]: elected mean in the coordinates of each row's right singular vectors."""
    u, s, vh = torch.linalg.svd(rows, full_matrices=False)
    coordinates = (u * s[:, None, :]).transpose(0, 1)
    # Whatever is not zero counts, and its sign decides: rounding must not.
    rounding = 1e-10 * s[:, :1]
    total = coordinates.sum(0)
    sign = torch.sign(total * (total.abs() > rounding))
    present = coordinates * (coordinates.abs() > rounding)
    return torch.einsum("rc,rcn->rn", agree_mean(present, sign, [1.0] * len(present)), vh)
