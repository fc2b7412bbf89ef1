"""ESM: merge in the subspaces that the tasks' outputs move in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supermerge.methods.context import Context
from supermerge.methods.layers import family
from supermerge.methods.measured import Statistics
from supermerge.methods.parameters import NonNegative, Number
from supermerge.methods.registry import method
from supermerge.methods.spectral import NAMED_PROJECTIONS, is_matrix, mean, svd
from supermerge.methods.survey import Account, MeasuredSurvey, Totals
from supermerge.methods.tsv_m import decorrelated_sum

ROUNDING = 1e-6
"""Energies below this share of the largest are rounding: Gram matrices are sums in fp32."""


def essential_directions(tau: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """(U [m, r], energies [r], descending): the eigenvectors of E (τ x)(τ x)ᵀ = τ G τᵀ, r of them above rounding."""
    m, n = tau.shape
    if m <= n:
        energies, vectors = torch.linalg.eigh(tau @ gram @ tau.T)
        energies, u = energies.flip(0), vectors.flip(1)
    else:
        values, turn = torch.linalg.eigh(gram)
        u, s, _ = svd(tau @ (turn * values.clamp(min=0).sqrt()))
        energies = s**2
    kept = int((energies > ROUNDING * energies[:1]).sum())
    return u[:, :kept], energies[:kept]


def essential_sum(taus: Tensor, grams: Sequence[Tensor], *, spread: float, tasks: float, dimensions: float) -> Tensor:
    """[m, n]: the tasks' essential parts, scaled, stacked and orthogonalised, in fp64."""
    wide = taus.double()
    share = max(1, wide.shape[1] // len(wide))
    sizes = wide.flatten(1).norm(dim=1)
    if not bool(sizes.any()):
        return torch.zeros_like(wide[0])
    left, right = [], []
    for tau, gram, factor in zip(wide, grams, relative(sizes, tasks), strict=True):
        u, energies = essential_directions(tau, gram.double())
        u, energies = u[:, :share], energies[:share]
        e = relative(relative(energies, spread), 1)
        left.append(u * e)
        right.append((u * e).T @ tau * factor)
    a = torch.cat(right)
    return isotropic(torch.cat(left, dim=1)) @ isotropic(a * relative(a.norm(dim=0), dimensions))


def relative(norms: Tensor, power: float) -> Tensor:
    """(norms / their mean) ^ power: what is larger than its likes grows, what is smaller shrinks."""
    return (norms / norms.mean()) ** power


def isotropic(matrix: Tensor) -> Tensor:
    """The matrix with all its singular values, as far as it has a rank, replaced by their mean."""
    u, s, vh = svd(matrix)
    return s.mean() * (u @ vh) if len(s) else torch.zeros_like(matrix)


class LayerNorms(MeasuredSurvey):
    """The norm of every merged matrix, against the mean of its namesakes in all layers."""

    def __init__(self, spread: float, tasks: float, dimensions: float, exclude: Sequence[str]) -> None:
        super().__init__()
        self._spread, self._tasks, self._dimensions, self._exclude = spread, tasks, dimensions, exclude
        self._totals = Totals()
        self._counts: dict[str, set[str]] = {}

    def accounts(self) -> Sequence[Account]:
        """The norms."""
        return [self._totals]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """Merge one matrix, and keep its norm."""
        name = family(context.name)
        if name is not None and is_matrix(context, self._exclude):
            merged = self.merged(self.statistics(context, base), taus)
            self._totals.add(context.name, float(merged.double().norm()))
            self._totals.add(name, float(merged.double().norm()))
            self._totals.add((name, "matrices"), 1)

    def finish_pass(self) -> bool:
        """One pass is enough."""
        return False

    def merged(self, statistics: Statistics, taus: Tensor) -> Tensor:
        """A matrix: in its essential subspaces where its inputs were measured, else by TSV-M."""
        grams = statistics.of("gram")
        if grams is None:
            return decorrelated_sum(taus)
        turned = taus.transpose(1, 2) if statistics.inputs_first else taus
        found = essential_sum(turned, grams, spread=self._spread, tasks=self._tasks, dimensions=self._dimensions)
        return (found.T if statistics.inputs_first else found).to(taus)

    def relative(self, name: str) -> float:
        """The norm of the merged matrix called `name`, in units of the mean over its namesakes; 1 outside layers."""
        of = family(name)
        count = self._totals.of((of, "matrices"))
        total = self._totals.of(of)
        return self._totals.of(name) * count / total if of is not None and total > 0 else 1.0


@method(
    "esm",
    scope="model",
    whole=True,
    title="Essential subspace merging (ESM)",
    paper="https://arxiv.org/abs/2602.20208",
    statistics=("gram",),
    survey=lambda values, k: LayerNorms(values["spread"], values["tasks"], values["dimensions"], values["exclude"]),
    cost="Measures once per expert: one forward pass over its examples for the Gram matrices of RegMean, kept beside "
    "the expert. Then k + 2 decompositions per matrix, twice: the norms of all layers are needed first.",
    use="What TSV-M and Iso-C are used for, where there are some unlabelled examples.",
    avoid="A single expert, which does not come back: its spectrum is flattened.",
)
def esm(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    survey: LayerNorms,
    statistics: Statistics,
    scale: Number = 1.0,
    gain: Number = 2.0,
    spread: NonNegative = 0.15,
    tasks: NonNegative = 2.0,
    dimensions: NonNegative = 2.0,
    layers: NonNegative = 2.0,
    exclude: tuple[str, ...] = NAMED_PROJECTIONS,
) -> Tensor:
    """The base plus the sum of the task matrices' parts that move outputs most, made orthogonal to each other's.

    For the m × n weight of a linear layer with inputs x: Uᵢ, λᵢ = the m / k leading eigenvectors and eigenvalues of
    E (τᵢ x)(τᵢ x)ᵀ over the inputs of expert i; e = (λᵢ / mean λᵢ) ^ `spread`, divided by its mean;
    Ũ = [… Uᵢ diag(e) …], Ã = [… diag(e) Uᵢᵀ τᵢ (‖τᵢ‖ / mean ‖τ‖) ^ `tasks` …], its column j times
    (‖Ãⱼ‖ / mean ‖Ãⱼ‖) ^ `dimensions`; Δ = `gain` · iso(Ũ) iso(Ã), where iso replaces singular values by their mean.
    Other matrices merge as in TSV-M, all else takes the mean task vector. Inside numbered layers, Δ of a matrix is
    multiplied by (‖Δ‖ / mean ‖Δ‖ of its namesakes in all layers) ^ `layers`; θ = θp + scale · Δ. The authors' code for
    language models has `gain` 1 and `tasks` and `dimensions` 0.

    Departs from the authors' code: attention projections count as they are stored, separate or fused; every linear
    layer has its essential subspace (there, of images, attention outputs merge as in TSV-M); where a subspace has fewer
    than m / k directions, none are made up.
    """
    if not is_matrix(context, exclude):
        return base + scale * mean(taus)
    factor = survey.relative(context.name) ** layers * (gain if statistics.of("gram") is not None else 1.0)
    return base + scale * factor * survey.merged(statistics, taus)
