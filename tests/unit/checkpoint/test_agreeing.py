"""Experts whose configs read the same weights in another way than the base's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from supermerge.checkpoint import Checkpoint
from supermerge.checkpoint.agreeing import compared_configs
from supermerge.errors import CheckpointError

BASE = {
    "model_type": "x",
    "num_heads": 4,
    "eps": 1,
    "rope_theta": 1e4,
    "text_config": {"num_layers": 2, "hidden_act": "gelu"},
}


@pytest.fixture
def compared(save: Callable[..., Path]) -> Callable[[Mapping[str, Any]], list[str]]:
    def compare(changes: Mapping[str, Any]) -> list[str]:
        opened = []
        for name, config in (("base", BASE), ("expert", {**BASE, **changes})):
            directory = save(name, {"a": torch.zeros(2)})
            (directory / "config.json").write_text(json.dumps(config))
            opened.append(Checkpoint.open(directory))
        return compared_configs(opened[0], {"one": opened[1]})

    return compare


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": 2}, "num_heads is 2 in its config, and 4 in the base's"),
        ({"text_config": {"num_layers": 1}}, "text_config.num_layers is 1 in its config, and 2 in the base's"),
    ],
)
def test_other_counts_are_refused(compared: Callable[..., list[str]], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        compared(changes)


def test_other_ways_are_told(compared: Callable[..., list[str]]) -> None:
    notes = compared({"rope_theta": 1e6, "text_config": {"num_layers": 2, "hidden_act": "relu"}})
    assert [note.split(": ", 1)[1] for note in notes] == [
        "rope_theta is 1000000.0 in its config, and 10000.0 in the base's; the merge has the base's",
        "text_config.hidden_act is 'relu' in its config, and 'gelu' in the base's; the merge has the base's",
    ]


def test_what_says_nothing_of_the_weights_may_differ(compared: Callable[..., list[str]]) -> None:
    assert compared({"eps": 2, "num_labels": 7, "rope_theta": None, "text_config": 3}) == []
