"""RegMean++."""

from __future__ import annotations

from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.measured import Statistics
from supermerge.methods.parameters import Fraction, NonNegative
from supermerge.methods.registry import method
from supermerge.methods.regmean import regression_mean


@method(
    "regmean_plus_plus",
    scope="tensor",
    title="RegMean++",
    paper="https://arxiv.org/abs/2508.03121",
    statistics=("merged_gram",),
    cost="Measures layer by layer on the merge as it grows: for every layer and expert one forward pass over up to 256 "
    "examples, up to that layer. What is measured belongs to these experts together, so nothing is kept. Then one "
    "linear system per layer.",
    use="What RegMean is used for, where the examples are at hand and the model is not very deep.",
    avoid="Experts whose statistics travel without their examples: those of RegMean do.",
)
def regmean_plus_plus(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    statistics: Statistics,
    keep: Fraction = 0.95,
    ridge: NonNegative = 1e-6,
) -> Tensor:
    """RegMean on the inputs that the layers of the merged model will really get.

    W = (Σᵢ Wᵢ G̃ᵢ) (Σᵢ G̃ᵢ)⁻¹ as in RegMean, with Gᵢ = E x xᵀ over the examples of expert i, where x is the input of
    the linear layer in a model whose earlier layers are merged already, and whose layer at hand is expert i's. Other
    tensors take the mean of the experts. `keep` and `ridge` are as in RegMean.

    Departs from the authors' code: what counts as a layer is read from the names of tensors, and the order of layers
    from a forward pass, so that any architecture will do; linear layers outside numbered layers are merged in the same
    way (there, they take the mean).
    """
    return regression_mean(base, taus, context, statistics, "merged_gram", keep, ridge)
