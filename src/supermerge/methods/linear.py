"""Weight averaging."""

from __future__ import annotations

from torch import Tensor

from supermerge.methods.parameters import Weights
from supermerge.methods.registry import method
from supermerge.methods.transforms import normalised, weighted_sum


@method(
    "linear",
    scope="element",
    title="Weight averaging (model soups)",
    paper="https://arxiv.org/abs/2203.05482",
    needs_base=False,
    cost="Reads every file once; memory of a few blocks.",
    use="A first baseline, and for experts of one task from different runs (model soups).",
    avoid="Experts of different tasks: every task keeps only 1/k of its change.",
)
def linear(base: Tensor, taus: Tensor, *, weights: Weights = None, normalize: bool = True) -> Tensor:
    """The weighted average of the experts.

    θ = Σᵢ wᵢ θᵢ / Σᵢ wᵢ, or θ = Σᵢ wᵢ θᵢ with `normalize: false`. `weights` default to 1 each, so θ is the plain mean.
    It is computed as θp + Σᵢ wᵢ τᵢ (plus (Σᵢ wᵢ − 1) θp without normalisation), so experts equal to the base give the
    base exactly. Weights that sum to zero under normalisation are a RecipeError.
    """
    w = weights or (1.0,) * len(taus)
    if normalize:
        return weighted_sum(base, taus, normalised(w, "linear"))
    return weighted_sum(base * sum(w), taus, w)
