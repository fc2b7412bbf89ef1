"""A torch whose FSDP2 lacks what sharded learning needs is named, before anything is computed."""

from __future__ import annotations

import pytest
from torch import nn
from torch.distributed.fsdp import FSDPModule

from supermerge.errors import UsageError
from supermerge.learn.shards import sum_gradients


@pytest.mark.parametrize("lacking", ["set_reduce_scatter_unused_params", "set_force_sum_reduction_for_comms"])
def test_an_older_torch_is_told_which_one_is_needed(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", "2.6.0")
    sum_gradients(nn.Linear(2, 2))
    monkeypatch.delattr(FSDPModule, lacking)
    with pytest.raises(UsageError, match=rf"torch 2\.13 or newer; found torch 2\.6\.0, .*no {lacking}"):
        sum_gradients(nn.Linear(2, 2))
