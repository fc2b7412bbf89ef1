"""95 % confidence intervals: Wilson's for proportions, the seeded percentile bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_Z = 1.959963984540054  # the 97.5 % point of the normal distribution
RESAMPLES = 1000
_CHUNK = 100
_SEED = 0


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of the proportion p = successes / n (Wilson 1927).

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    """
    p = successes / n
    centre = p + _Z**2 / (2 * n)
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    # At p = 0 and p = 1 the bound is exactly p; rounding must not move it past.
    return min(p, max(0.0, (centre - half) / (1 + _Z**2 / n))), max(p, min(1.0, (centre + half) / (1 + _Z**2 / n)))


def resampled(n: int, statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """[RESAMPLES]: `statistic` over resamples of n examples with replacement (Efron 1979).

    `statistic` takes drawn positions [resamples, n] and gives one value per resample. The draws are the same in every
    run, so that those of two models on the same examples are pairs.
    """
    generator = torch.Generator().manual_seed(_SEED)
    return torch.cat(
        [
            statistic(torch.randint(n, (_CHUNK, n), generator=generator)).to(torch.float64)
            for _ in range(RESAMPLES // _CHUNK)
        ]
    )


def bootstrap(value: float, values: Tensor) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of resampled `values`, widened to hold `value` where chance left it out."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return min(low, value), max(high, value)
