"""Nonsense in the weights is refused, wherever in a tensor it stands."""

from __future__ import annotations

import pytest
import torch

from supermerge.assemble import Geometry, merge_into
from supermerge.assemble.merge import StateDict
from supermerge.checkpoint import Checkpoint, Match, match
from supermerge.errors import CheckpointError
from supermerge.relation import require_plausible, require_related

SIZE = 40_000  # more than the check of the relation samples


def fit(base_value: float = 0.0, expert_value: float = 0.0, *, scale: float = 0.1) -> Match:
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(SIZE, generator=draw)
    expert = base + scale * torch.randn(SIZE, generator=draw)
    base[-1] += base_value
    expert[-1] += expert_value
    return match(
        Checkpoint.open({"layer.weight": base}, label="base"),
        {"news": Checkpoint.open({"layer.weight": expert}, label="the news expert")},
    )


def geometry(fitted: Match) -> Geometry:
    sink = StateDict([fitted.base.tensors["layer.weight"]])
    found = merge_into(sink, "linear", fitted, geometry=True).geometry
    assert found is not None
    return found


def test_fine_tuned_experts_pass() -> None:
    fitted = fit()
    require_related(fitted)
    require_plausible(geometry(fitted), fitted)


def test_other_weights_are_unrelated() -> None:
    with pytest.raises(CheckpointError, match=r"Not fine-tuned from the base base.*news \(1\.\d"):
        require_related(fit(scale=1.5))


@pytest.mark.parametrize("value", [1e12, 1e25, 1e38])
def test_one_value_beyond_the_sample_is_found_and_its_checkpoint_named(value: float) -> None:
    of_expert, of_base = fit(expert_value=value), fit(base_value=value)
    require_related(of_expert)
    with pytest.raises(CheckpointError, match=r"the news expert: tensor 'layer.weight' has absurdly large values"):
        require_plausible(geometry(of_expert), of_expert)
    with pytest.raises(CheckpointError, match=r"base: tensor 'layer.weight' has absurdly large values"):
        require_plausible(geometry(of_base), of_base)
