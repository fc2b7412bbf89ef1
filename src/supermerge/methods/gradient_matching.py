"""Uncertainty-based gradient matching."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.measured import Estimator, Statistics
from supermerge.methods.parameters import NonNegative, Shares
from supermerge.methods.registry import Values, method
from supermerge.methods.transforms import summed, weighted_sum

Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def wanted(values: Values) -> tuple[str, ...]:
    """One estimate of the Fisher information, of the experts and of the base."""
    estimator: Any = values["estimator"]
    return (f"fisher_{estimator}", f"base_fisher_{estimator}")


@method(
    "gradient_matching",
    scope="element",
    title="Uncertainty-based gradient matching",
    paper="https://arxiv.org/abs/2310.12808",
    statistics=wanted,
    cost="Measures once per expert and once for the base: one forward and backward pass per example, in the memory of "
    "three models; kept beside them, each as large as a model. Then reads every file once.",
    use="What task arithmetic is used for, where there is some data: less sensitive to the scale.",
    avoid="Experts that are certain of all their answers, as for Fisher merging.",
)
def gradient_matching(
    base: Tensor,
    taus: Tensor,
    *,
    statistics: Statistics,
    scale: Scale = 0.3,
    sizes: Shares = None,
    base_size: NonNegative = 1.0,
    prior: NonNegative = 1e-12,
    estimator: Estimator = "sampled",
) -> Tensor:
    """Task arithmetic in which every task vector counts where its expert is certain, and the base where it is.

    θ = θp + α Σᵢ (H₀ + Hᵢ) / H̄ · τᵢ with H̄ = H₀ + α Σᵢ Hᵢ, element by element; Hᵢ = sᵢ Fᵢ with Fᵢ the diagonal of
    expert i's Fisher information on its own task (`estimator` as in Fisher merging) and sᵢ its number of training
    examples (`sizes`, 1 each by default, so that all tasks count alike); H₀ = `base_size` · F₀ + `prior` with F₀ the
    base's Fisher information; α = `scale`. Tensors that get no gradient take task arithmetic with this scale divided
    by the number of experts.

    Departs from the paper: the base's Fisher information is that on the examples of all tasks, since its own training
    data are not at hand. The base is less sure of them than the experts are, so H₀ outweighs the Hᵢ and the merge is
    close to task arithmetic with scale α: α is 0.3 by default (in the paper 1). `base_size: 0` leaves H₀ out, which
    with α = 1 is Fisher merging without its normalisation. A negative α, which forgets tasks, is not offered: H̄ may
    vanish.
    """
    kind, of_base = wanted({"estimator": estimator})
    found, before = statistics.of(kind), statistics.of(of_base)
    k = len(taus)
    if found is None or before is None:
        return weighted_sum(base, taus, [scale / k] * k)
    h0 = base_size * before[0].to(base) + prior
    h = [size * information.to(base) for size, information in zip(sizes or (1.0,) * k, found, strict=True)]
    total = h0 + scale * summed(h)
    # Where nothing is known, not even a prior, tasks count alike.
    shares = [torch.where(total > 0, (h0 + each) / total.clamp(min=torch.finfo(total.dtype).tiny), 1 / k) for each in h]
    return base + scale * summed([share * tau for share, tau in zip(shares, taus, strict=True)])
