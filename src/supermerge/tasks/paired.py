"""Whether one model scores better than another on the same examples: a paired bootstrap over all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from supermerge.tasks.score import Score


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean over the tasks of ours − theirs, positive where ours is better, with its 95 % interval.

    `p` is two-sided; `n` counts the examples of all tasks.
    """

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether p is at most 0.05."""
        return self.p <= 0.05


def difference(ours: Mapping[str, Score], theirs: Mapping[str, Score]) -> Difference:
    """Compare two models by their scores on the same examples of the same tasks.

    Every task's examples are resampled with replacement, for both models alike, a thousand times (Efron 1979; Koehn
    2004 for pairs of systems); p = 2 min(P(difference ≤ 0), P(difference ≥ 0)), counting one resample more.
    """
    value, drawn = 0.0, torch.zeros(len(next(iter(ours.values())).resampled), dtype=torch.float64)
    for place, (task, mine) in enumerate(ours.items()):
        other, sign = theirs[task], 1 if mine.higher_is_better else -1
        value += sign * (mine.value - other.value) / len(ours)
        pairs = torch.tensor(mine.resampled, dtype=torch.float64) - torch.tensor(other.resampled, dtype=torch.float64)
        # All metrics draw alike, which pairs the models. Tasks must not be paired: each is shifted by its place.
        drawn += sign * pairs.roll(place) / len(ours)
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Difference(value, min(low, value), max(high, value), p, sum(score.n for score in ours.values()))
