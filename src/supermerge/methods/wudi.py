"""WUDI-Merging: the task vector with the least interference in the directions that the experts use."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from supermerge.methods.adam import adam
from supermerge.methods.context import Context
from supermerge.methods.parameters import Number, PositiveFraction
from supermerge.methods.registry import method
from supermerge.methods.spectral import NOT_INSIDE_LAYERS, is_matrix, mean
from supermerge.methods.transforms import summed

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rest = Literal["base", "mean"]
_RANK = 1e-10
"""Eigenvalues of Σᵢ Gᵢ below this share of the largest are rounding: the square of that of singular values."""


def usage(taus: Tensor) -> tuple[Tensor, Tensor]:
    """(Σᵢ Gᵢ [n, n], Σᵢ τᵢ Gᵢ [m, n]) in fp64, Gᵢ = τᵢᵀ τᵢ / ‖τᵢ‖²: the directions that the experts' inputs took."""
    m, n = taus.shape[1:]
    directions = torch.zeros(n, n, dtype=torch.float64, device=taus.device)
    targets = torch.zeros(m, n, dtype=torch.float64, device=taus.device)
    for tau in taus.double():
        energy = float((tau * tau).sum())
        if energy:
            gram = tau.T @ tau / energy
            directions += gram
            targets += tau @ gram
    return directions, targets


def eigen(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first, and eigenvectors of Σᵢ Gᵢ, up to its numerical rank."""
    values, vectors = torch.linalg.eigh(directions)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = int((values > _RANK * values[:1].clamp(min=0)).sum())
    return values[:kept], vectors[:, :kept]


def rest_of(base: Tensor, taus: Tensor, rest: Rest, scale: float) -> Tensor:
    """What tensors get that are not optimised."""
    return base + scale * mean(taus) if rest == "mean" else base.clone()


@method(
    "wudi",
    scope="tensor",
    title="WUDI-Merging",
    paper="https://arxiv.org/abs/2503.08099",
    cost="Reads every file once; 300 steps of an n × n product per matrix: the slowest method here beside `doge`; "
    "whole tensors in memory.",
    use="Experts of different tasks without data, when minutes per model do not matter; strong on text encoders in "
    "published results.",
    avoid="Large models: use `swudi`. `solver: closed` merges worse than few steps.",
)
def wudi(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    solver: Literal["adam", "closed"] = "adam",
    steps: Annotated[int, Field(ge=0)] = 300,
    lr: Positive = 1e-5,
    scale: Number = 1.0,
    rest: Rest = "base",
    exclude: tuple[str, ...] = NOT_INSIDE_LAYERS,
) -> Tensor:
    """The task matrix that, seen through every expert's own directions, is closest to that expert's.

    For every matrix: minimise Σᵢ ‖(τ − τᵢ) τᵢᵀ‖² / ‖τᵢ‖² from τ = Σᵢ τᵢ by `steps` of Adam at `lr`; θ = θp + scale ·
    τ. `solver: closed` takes the minimum itself, (Σᵢ τᵢ Gᵢ)(Σᵢ Gᵢ)⁺ with Gᵢ = τᵢᵀ τᵢ / ‖τᵢ‖², which has less loss
    and, the authors of later work report, merges worse. Other tensors, and those matched by `exclude` (the paper
    takes attention and MLP weights), keep the base, or take the mean task vector (`rest: mean`). Adam runs in fp64.
    """
    if not is_matrix(context, exclude):
        return rest_of(base, taus, rest, scale)
    directions, targets = usage(taus)
    if solver == "closed":
        values, vectors = eigen(directions)
        merged = (targets @ vectors / values) @ vectors.T
    else:
        merged = adam(summed(taus.double()), lambda tau: 2 * (tau @ directions - targets), steps, lr)
    return base + scale * merged.to(base)


@method(
    "swudi",
    scope="tensor",
    title="Spectral WUDI (SWUDI)",
    paper="https://arxiv.org/abs/2606.07289",
    cost="Reads every file once; one decomposition per matrix; whole tensors in memory.",
    use="WUDI's merge in seconds.",
    avoid="Where published defaults are wanted: `time` and `density` are ours.",
)
def swudi(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    time: Positive = 10.0,
    density: PositiveFraction = 1.0,
    scale: Number = 1.0,
    rest: Rest = "base",
    exclude: tuple[str, ...] = NOT_INSIDE_LAYERS,
) -> Tensor:
    """WUDI in closed form: gradient flow from the sum, stopped at `time`, in the leading directions.

    With Σᵢ Gᵢ = Q Λ Qᵀ and τ* WUDI's minimum: τ = τ₀ + (τ* − τ₀) Q f Qᵀ, τ₀ = Σᵢ τᵢ, f = 1 − exp(−time · λ) for the
    `density` share of largest λ and 0 for the others; θ = θp + scale · τ. Tensors are treated as in `wudi`.

    The filter is from the paper's summary; that it acts on the way from the sum, and both defaults, are our reading and
    could not be verified.
    """
    if not is_matrix(context, exclude):
        return rest_of(base, taus, rest, scale)
    directions, targets = usage(taus)
    values, vectors = eigen(directions)
    start = summed(taus.double())
    kept = torch.arange(len(values), device=values.device) < max(1, int(density * len(values)))
    filtered = kept * -torch.expm1(-time * values)
    away = (targets @ vectors / values - start @ vectors) * filtered
    return base + scale * (start + away @ vectors.T).to(base)
