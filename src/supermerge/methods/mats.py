"""MaTS."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from supermerge.events import emit
from supermerge.methods.conjugate_gradient import solve
from supermerge.methods.context import Context
from supermerge.methods.measured import Statistics
from supermerge.methods.parameters import Fraction, NonNegative, Number
from supermerge.methods.registry import Values, method
from supermerge.methods.regmean import off_diagonal
from supermerge.methods.spectral import mean
from supermerge.methods.transforms import summed

Subspace = Literal["kronecker", "inputs", "fisher"]


def wanted(values: Values) -> tuple[str, ...]:
    """The statistics that span the tasks' subspaces."""
    estimator = values["estimator"]
    of_subspace = {
        "kronecker": ("gram", f"gradient_gram_{estimator}"),
        "inputs": ("gram",),
        "fisher": (f"fisher_{estimator}",),
    }
    return of_subspace[values["subspace"]]


@method(
    "mats",
    scope="tensor",
    title="Matching models in their task subspaces (MaTS)",
    paper="https://arxiv.org/abs/2312.04339",
    statistics=wanted,
    tune=("iterations", (3, 10, 30, 100)),
    cost="Measures twice per expert: a forward pass over its examples for Gram matrices of inputs, a forward and "
    "backward pass for those of output gradients; kept beside the expert, about as large as it. Then up to "
    "`iterations` times k products of three matrices per linear layer.",
    use="Experts of different tasks with labelled examples: what RegMean does, with the outputs weighted too.",
    avoid="Output layers over large vocabularies, whose output Gram matrices do not fit into memory.",
)
def mats(
    base: Tensor,
    taus: Tensor,
    *,
    context: Context,
    statistics: Statistics,
    subspace: Subspace = "kronecker",
    estimator: Literal["sampled", "empirical"] = "empirical",
    keep: Fraction = 1.0,
    start: Number = 0.3,
    iterations: Annotated[int, Field(ge=0)] = 100,
    tolerance: NonNegative = 1e-5,
) -> Tensor:
    """The weights that come closest to every expert's, measured where the expert's task is sensitive to them.

    For every linear layer: Σᵢ Aᵢ X Bᵢ = Σᵢ Aᵢ Wᵢᵀ Bᵢ is solved for X = Wᵀ by conjugate gradients, with Aᵢ = E x xᵀ of
    the layer's inputs and Bᵢ = E g gᵀ of the gradients g = ∂ log p(y|x) / ∂ output, y the label (`empirical`) or drawn
    from p(y|x) (`sampled`): Aᵢ ⊗ Bᵢ approximates the layer's Fisher information. `subspace: inputs` leaves Bᵢ out
    (RegMean), `fisher` takes the diagonal Fisher information of all tensors instead (Fisher merging). Off-diagonal
    elements count `keep` times. Conjugate gradients start from task arithmetic with scale `start` and stop after
    `iterations`, or when the residual falls to `tolerance` times the right-hand side. Directions that no task is
    sensitive to keep their start, so fewer iterations stay closer to it. Other tensors take the mean of the experts.

    Departs from the authors' code: fp64, and task vectors in place of weights, which changes rounding alone.
    """
    found = [statistics.of(kind) for kind in wanted({"subspace": subspace, "estimator": estimator})]
    if any(each is None for each in found):
        return base + mean(taus)
    present = [[matrix.double() for matrix in each] for each in found if each is not None]
    turn = subspace != "fisher" and not statistics.inputs_first
    values = [tau.double().T if turn else tau.double() for tau in taus]
    if subspace == "fisher":
        (weights,) = present
        products = [lambda x, f=f: f * x for f in weights]
    else:
        a = [off_diagonal(matrix, keep) for matrix in present[0]]
        b = [off_diagonal(matrix, keep) for matrix in present[1]] if subspace == "kronecker" else [None] * len(a)
        products = [lambda x, a=a, b=b: a @ x if b is None else a @ x @ b for a, b in zip(a, b, strict=True)]
    right = summed([product(value) for product, value in zip(products, values, strict=True)])
    where = f"tensor {context.name!r}"
    solution = solve(
        lambda x: summed([product(x) for product in products]),
        right,
        start * summed(values),
        iterations=iterations,
        tolerance=tolerance,
        where=where,
    )
    if solution.residual > tolerance and iterations:
        emit(
            "note",
            message=f"{where}: conjugate gradients stopped after {solution.iterations} iterations at a relative "
            f"residual of {solution.residual:.1e}",
        )
    return base + (solution.x.T if turn else solution.x).to(base)
