"""CART: low-rank task vectors around the average instead of the base."""

from __future__ import annotations

from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.spectral import NOT_INSIDE_LAYERS, is_matrix, mean, truncated


def leading(taus: Tensor, average: Tensor, density: float) -> list[Tensor]:
    """Every τᵢ less their average, cut to its leading singular values, in fp64."""
    rank = max(1, int(density * min(average.shape)))
    return [part.matrix() for part in truncated(taus.double() - average.double(), rank)]


def _process(
    base: Tensor, taus: Tensor, *, context: Context, density: float, scale: float, exclude: tuple[str, ...]
) -> list[Tensor]:
    """τᵢ / k + scale · τ̄ᵢ: the average's share with the expert's own leading part."""
    if not is_matrix(context, exclude):
        return [tau / len(taus) for tau in taus]
    parts = leading(taus, mean(taus), density)
    return [(tau / len(taus) + scale * part).to(base) for tau, part in zip(taus, parts, strict=True)]


@method(
    "cart",
    scope="tensor",
    title="CART",
    paper="https://arxiv.org/abs/2412.12153",
    process=_process,
    cost="Reads every file once; one decomposition per matrix and expert; whole tensors in memory.",
    use="Three experts and more, when averaging is already fair: restores each task's leading directions.",
    avoid="Two experts: it is the plain average there, whatever the parameters.",
)
def cart(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    density: PositiveFraction = 0.12,
    scale: Number = 2.0,
    exclude: tuple[str, ...] = NOT_INSIDE_LAYERS,
) -> Tensor:
    """The average plus the leading parts of every expert's difference from it.

    θ̄ = θp + (1/k) Σᵢ τᵢ; for every m × n matrix τ̄ᵢ = θᵢ − θ̄ cut to its max(1, int(density · min(m, n))) largest
    singular values; θ = θ̄ + scale · Σᵢ τ̄ᵢ. Other tensors, and those matched by `exclude` (the paper takes attention
    and MLP weights), are averaged. The authors' code uses densities of 0.12, 0.16, 0.32 and scales of 2, 1.5, 1.9 for
    8, 14 and 20 experts. Two experts give the average, whatever the parameters: their differences cancel.

    Where two singular values are equal at the cut, which of their directions stays is open.
    """
    average = mean(taus)
    if not is_matrix(context, exclude):
        return base + average
    parts = leading(taus, average, density)
    return base + (average + scale * sum(parts[1:], parts[0])).to(base)
