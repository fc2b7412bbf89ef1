"""Weight averaging."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from supermerge.methods.factored import FactoredMerge, combined
from supermerge.methods.parameters import Weights
from supermerge.methods.registry import Values, method
from supermerge.methods.transforms import normalised, weighted_sum


def shares(weights: Weights, normalize: bool, k: int) -> Sequence[float]:
    """The coefficients of the experts; without normalisation the base has 1 less their sum."""
    w = weights or (1.0,) * k
    return normalised(w, "linear") if normalize else w


def factored_sum(values: Values, k: int) -> FactoredMerge | None:
    """Σᵢ wᵢ τᵢ, where the base stays as it is."""
    c = shares(values["weights"], values["normalize"], k)
    return (lambda taus, context: combined(taus, c)) if values["normalize"] or sum(c) == 1 else None


@method(
    "linear",
    scope="element",
    title="Weight averaging (model soups)",
    paper="https://arxiv.org/abs/2203.05482",
    needs_base=False,
    factored=factored_sum,
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
    w = shares(weights, normalize, len(taus))
    return weighted_sum(base if normalize else base * sum(w), taus, w)
