"""The method of conjugate gradients, for positive semi-definite systems that are given as a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from supermerge.errors import DataError


@dataclass(frozen=True, slots=True)
class Solution:
    """`x`, after `iterations`; `residual` is ‖b − Ax‖ / ‖b‖."""

    x: Tensor
    iterations: int
    residual: float


def solve(
    apply: Callable[[Tensor], Tensor], b: Tensor, x0: Tensor, *, iterations: int, tolerance: float, where: str
) -> Solution:
    """Improve x0 towards A x = b, with A x = `apply(x)`, until ‖b − Ax‖ ≤ `tolerance` · ‖b‖ or for `iterations`.

    Where A is singular, what it does not see of x0 stays. Raises DataError, naming `where`, where A turns out not to
    be positive semi-definite or holds values that are not finite.
    """
    x, r = x0.clone(), b - apply(x0)
    p, size, done = r.clone(), float(b.norm()), 0
    squared = float((r * r).sum())
    while done < iterations and not squared**0.5 <= tolerance * size:  # what is not a number goes on, and is refused
        seen = apply(p)
        curvature = float((p * seen).sum())
        if not curvature > 0:
            raise DataError(
                f"{where}: conjugate gradients do not converge: after {done} iterations the curvature is "
                f"{curvature:g}, expected above 0.",
                hint="The statistics hold values that are not finite, or are damaged: delete and measure them again.",
            )
        step = squared / curvature
        x += step * p
        r -= step * seen
        previous, squared = squared, float((r * r).sum())
        p = r + (squared / previous) * p
        done += 1
    return Solution(x, done, squared**0.5 / size if size else 0.0)
