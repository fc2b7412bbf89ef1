"""Sens-Merging."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.layers import layer_of
from supermerge.methods.measured import Statistics
from supermerge.methods.parameters import Number
from supermerge.methods.registry import Values, method
from supermerge.methods.transforms import weighted_sum

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def layer_shares(sensitivities: Mapping[str, float]) -> dict[str, float]:
    """α of every tensor's layer, from the sensitivities sₗ of one expert's tensors: αₗ = sₗ / ‖s‖ over the layers l.

    Tensors in no numbered layer are one layer per module. An expert that is sensitive to nothing has 0.
    """
    layers: defaultdict[str, float] = defaultdict(float)
    of = {name: layer_of(name) or name.rpartition(".")[0] for name in sensitivities}
    for name, value in sensitivities.items():
        layers[of[name]] += value
    size = math.sqrt(math.fsum(value**2 for value in layers.values()))
    return {name: layers[layer] / size if size > 0 else 0.0 for name, layer in of.items()}


def wanted(values: Values) -> tuple[str, ...]:
    """How sensitive experts are to their layers, and how far they are from each other."""
    return (f"sensitivity_{values['estimator']}", "alignment")


@method(
    "sens_merging",
    scope="element",
    title="Sens-Merging",
    paper="https://arxiv.org/abs/2502.12420",
    statistics=wanted,
    cost="Measures twice per expert: one forward and backward pass per example of its own task, in the memory of three "
    "models, and one forward pass over up to 100 examples of every task; a few numbers are kept beside the expert, and "
    "the logits of the second. Then reads every file once.",
    use="Task arithmetic whose coefficients should differ from layer to layer, with nothing to learn.",
    avoid="Expecting much: coefficients stay close to equal at temperature 1.",
)
def sens_merging(
    base: Tensor,
    taus: Tensor,
    *,
    statistics: Statistics,
    scale: Number = 0.3,
    temperature: Temperature = 1.0,
    estimator: Literal["sampled", "empirical"] = "empirical",
) -> Tensor:
    """Task arithmetic whose coefficients follow how sensitive experts are to a layer and how far they are from others.

    θ = θp + scale · k Σᵢ σᵢ τᵢ, in layer l with σ = softmaxᵢ(tᵢ αᵢ / temperature) over the experts. αᵢ = sᵢ(l) / ‖sᵢ‖
    with sᵢ(l) the mean over examples of Σ |θ ∂Lᵢ/∂θ| over the parameters of layer l of expert i, Lᵢ the loss with the
    label (`empirical`), or one drawn from the model (`sampled`). tᵢ = Σ_{j≠i} gᵢⱼ, divided by its sum over the experts,
    with gᵢⱼ the mean distance between the logits of experts i and j on the examples of task j. Equally sensitive
    experts give task arithmetic. Tensors that nothing was measured of take task arithmetic.

    Departs from the paper: no code of the authors was found; the normalisations of t, and that a larger distance counts
    more, are from a third party's code, in which `scale` is 1.
    """
    kind = f"sensitivity_{estimator}"
    alphas, distances = statistics.of(kind), statistics.of("alignment")
    k = len(taus)
    if alphas is None or distances is None:
        return weighted_sum(base, taus, [scale] * k)
    t = torch.stack([distance.double().reshape(()) for distance in distances])
    t = t / t.sum() if bool(t.any()) else torch.full_like(t, 1 / k)
    alpha = torch.stack([value.double().reshape(()) for value in alphas])
    sigma = torch.softmax(t * alpha / temperature, dim=0)
    return weighted_sum(base, taus, (scale * k * sigma).tolist())
