"""One number that says how good a model is on a task, with its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass, field

LOWER_IS_BETTER = frozenset({"perplexity"})


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of `metric` is a better one."""
    return metric not in LOWER_IS_BETTER


@dataclass(frozen=True, slots=True)
class Score:
    """`value` of `metric` over `n` examples; low ≤ value ≤ high bound a 95 % confidence interval.

    `resampled` are its values on resamples of the examples, the same ones for every model: what paired tests need.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    resampled: tuple[float, ...] = field(default=(), repr=False, compare=False)

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return higher_is_better(self.metric)
