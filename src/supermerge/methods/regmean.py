"""RegMean."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.measured import Statistics
from supermerge.methods.normal_equations import weighted_average
from supermerge.methods.parameters import Fraction, NonNegative
from supermerge.methods.registry import method
from supermerge.methods.spectral import mean


def off_diagonal(matrix: Tensor, keep: float) -> Tensor:
    """keep · G + (1 − keep) · diag(G), in fp64."""
    wide = matrix.double()
    return torch.lerp(torch.diag(wide.diagonal()), wide, keep)


def regression_mean(
    base: Tensor, taus: Tensor, context: Context, statistics: Statistics, kind: str, keep: float, ridge: float
) -> Tensor:
    """The closest weights on inputs whose Gram matrices are the statistics of `kind`; else the mean of the experts."""
    grams = statistics.of(kind)
    if grams is None or not any(bool(gram.any()) for gram in grams):
        return base + mean(taus)
    # The system is [inputs, outputs].
    values = list(taus if statistics.inputs_first else taus.transpose(1, 2))
    solved = weighted_average([off_diagonal(gram, keep) for gram in grams], values, ridge, f"tensor {context.name!r}")
    return base + (solved if statistics.inputs_first else solved.T).to(base)


@method(
    "regmean",
    scope="tensor",
    title="RegMean",
    paper="https://arxiv.org/abs/2212.09849",
    statistics=("gram",),
    tune=("keep", (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0)),
    cost="Measures once per expert: one forward pass over its examples, in the memory of a model and its Gram matrices "
    "(inputs² numbers per linear layer), kept beside the expert. Then one linear system per layer.",
    use="Experts of different tasks with unlabelled examples: among the best methods that learn nothing.",
    avoid="Very wide layers, whose Gram matrices are larger than they are; models whose tasks lie in other than "
    "linear layers.",
)
def regmean(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    statistics: Statistics,
    keep: Fraction = 0.9,
    ridge: NonNegative = 1e-6,
) -> Tensor:
    """The weights that come closest to every expert's outputs on the expert's own inputs, layer by layer.

    For every linear layer y = W x: W minimises Σᵢ E‖W x − Wᵢ x‖² over the inputs x of expert i, so
    W = (Σᵢ Wᵢ G̃ᵢ) (Σᵢ G̃ᵢ)⁻¹ with Gᵢ = E x xᵀ and G̃ᵢ = keep · Gᵢ + (1 − keep) · diag(Gᵢ). Other tensors take the mean
    of the experts.

    Departs from the paper: `ridge` times the mean diagonal is added to every G̃ᵢ, so that directions that no example has
    take the mean of the experts. With `ridge: 0`, Gram matrices that are singular together are refused as a DataError.
    """
    return regression_mean(base, taus, context, statistics, "gram", keep, ridge)
