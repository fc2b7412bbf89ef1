"""Statistics for golden tests, as if they had been measured."""

import torch

from supermerge.checkpoint import Checkpoint
from supermerge.methods import KINDS
from supermerge.statistics import Stored
from supermerge.statistics.stored import Part


def given(sizes=(1.0, 1.0, 1.0), inputs_first=(), k=2, **kinds):
    """Statistics as they would have been measured: kind → the tensor called `weight`, of every expert.

    Kinds that are not given were measured of another tensor.
    """
    sources = {kind: [Checkpoint.open({"another": torch.ones(1)})] * k for kind in KINDS} | {
        kind: [Checkpoint.open({"weight": torch.as_tensor(value, dtype=torch.float32)}) for value in values]
        for kind, values in kinds.items()
    }
    return Stored(
        {
            kind: [Part(one, size, frozenset(inputs_first)) for one, size in zip(parts, sizes, strict=False)]
            for kind, parts in sources.items()
        }
    )
