"""A workbench that two processes hold together computes what a whole one does, for every architecture."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from processes import together
from supermerge.errors import RecipeError
from supermerge.tasks.sharded import shard_models

SCRIPT = str(Path(__file__).with_name("shard_benches.py"))


def test_logits_gradients_and_weights_are_those_of_a_whole_one(
    saved: Callable[[str], Any], every_case: list[str], tmp_path: Path
) -> None:
    cases = {name: (saved(name)[0], *saved(name)[1][:2]) for name in every_case}
    torch.save(cases, tmp_path / "cases")
    ended = together((SCRIPT, str(tmp_path / "cases")), tmp_path, 2)
    assert ended.codes == [0, 0], ended.errors[0][-3000:]


def blocks(*sizes: int) -> torch.nn.ModuleList:
    return torch.nn.ModuleList(torch.nn.Linear(size, size) for size in sizes)


def model(*lists: torch.nn.ModuleList) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.ModuleDict({"blocks": each}) for each in lists))


def test_tasks_that_use_different_parts_are_refused() -> None:
    encoder, decoder = blocks(3), blocks(3, 4)
    with pytest.raises(RecipeError, match=r"tasks\.one and tasks\.other use different parts of the base's model"):
        shard_models(model(encoder, decoder), {"one": model(encoder, decoder), "other": model(encoder)})


def test_a_block_that_is_built_otherwise_is_refused() -> None:
    host, task = model(blocks(3)), model(torch.nn.ModuleList([torch.nn.Sequential()]))
    ours: Any = host
    theirs: Any = task
    theirs[0]["blocks"][0].register_parameter("weight", ours[0]["blocks"][0].weight)
    with pytest.raises(RecipeError, match=r"tasks\.one: 0\.blocks\.0 is built otherwise in the expert's model"):
        shard_models(host, {"one": task})
