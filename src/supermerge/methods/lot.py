"""LOT merging."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.measured import Statistics
from supermerge.methods.normal_equations import weighted_average
from supermerge.methods.parameters import NonNegative, Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import mean
from supermerge.methods.transforms import summed


@method(
    "lot",
    scope="tensor",
    title="Layer-wise optimal task vectors (LOT)",
    paper="https://arxiv.org/abs/2505.23859",
    statistics=("gram", "norm_moments"),
    cost="Measures twice per expert: a forward pass over its examples for the Gram matrices of RegMean, one for the "
    "normalisations; kept beside the expert. Then one linear system per layer.",
    use="What RegMean does, for task vectors: what no example shows stays as it is in the base.",
    avoid="Few examples and wide layers: most directions then stay the base's. RegMean takes the mean there.",
)
def lot(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    statistics: Statistics,
    scale: Number = 1.0,
    ridge: NonNegative = 1e-6,
) -> Tensor:
    """The base plus the task vector whose features are closest to every expert's on its own inputs, layer by layer.

    θ = θp + scale · τ. For the weight of a linear layer: τ minimises Σᵢ E‖τ x − τᵢ x‖² over the inputs x of expert i,
    so τ = (Σᵢ τᵢ Gᵢ) (Σᵢ Gᵢ + k ρ I)⁻¹ with Gᵢ = E x xᵀ and ρ = `ridge` times the mean diagonal. For the scale of a
    normalisation, element by element: τ = Σᵢ E x̂² τᵢ / Σᵢ E x̂² with x̂ the normalised inputs of expert i. Other tensors
    take the mean task vector.

    Departs from the paper: there the inverse is a pseudo-inverse, the limit of a small ridge; with `ridge: 0`, Gram
    matrices that are singular together are refused as a DataError. Every expert counts alike, however many tokens its
    examples have. The authors' code was not at hand: the formulas are those of a port of it and of two descriptions of
    the paper that agree.
    """
    grams, moments = statistics.of("gram"), statistics.of("norm_moments")
    if grams is not None and any(bool(gram.any()) for gram in grams):
        values = list(taus if statistics.inputs_first else taus.transpose(1, 2))
        solved = weighted_average(grams, values, ridge, f"tensor {context.name!r}", unseen="zero").to(base)
        return base + scale * (solved if statistics.inputs_first else solved.T)
    if moments is not None:
        weights = [moment.to(base) for moment in moments]
        total = summed(weights)
        shares = [torch.where(total > 0, weight / total, 1 / len(taus)) for weight in weights]
        return base + scale * summed([share * tau for share, tau in zip(shares, taus, strict=True)])
    return base + scale * mean(taus)
