"""Python calls that are wrong: an error of ours, which says what was found and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import supermerge
from supermerge.errors import CheckpointError, UsageError

BASE = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
EXPERT = {"weight": torch.ones(3, 4), "bias": torch.ones(3)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"experts": "experts/news"}, "found str"),
        ({"experts": None}, "found NoneType"),
        ({"weights": 0.5}, "found 0.5"),
        ({"threads": 0}, "threads must be at least 1, found 0"),
        ({"threads": -1}, "threads must be at least 1, found -1"),
    ],
    ids=str,
)
def test_merge(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        supermerge.merge(**{"base": BASE, "experts": [EXPERT], "method": "linear", **given})


def test_tensors_without_names() -> None:
    with pytest.raises(CheckpointError, match="1 is a int, not the name of a tensor"):
        supermerge.merge({1: torch.zeros(3)}, [{1: torch.ones(3)}])


@pytest.mark.parametrize(("methods", "says"), [("ties", "found 'ties'"), ([], r"found \[\]")], ids=str)
def test_compare(methods: Any, says: str, tmp_path: Path) -> None:
    recipe = {"base": "base", "experts": {"a": "a"}}
    with pytest.raises(UsageError, match=says):
        supermerge.compare(recipe, methods, output=tmp_path / "comparison")
    assert not (tmp_path / "comparison").exists()


def learned(loss: Callable[..., Any] = lambda model, task, batch: model(batch).square().mean(), **given: Any) -> None:
    model = nn.Linear(4, 3)
    model.load_state_dict(BASE)
    batches = [("a", torch.ones(2, 4))] * 2
    supermerge.learn(model, BASE, given.pop("experts", {"a": EXPERT}), batches, loss, steps=2, lr=0.1, **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"experts": [EXPERT]}, "found list"),
        ({"residency": "dsik"}, "residency 'dsik': unknown"),
        ({"residency": "sharded"}, "residency 'sharded': unknown"),
    ],
    ids=["a list of experts", "a misspelt residency", "a residency of recipes"],
)
def test_learn(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        learned(**given)


def mean_of_rows(model: nn.Module, task: str, batch: Tensor) -> Tensor:
    return model(batch).mean(1)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (mean_of_rows, r"gave torch.float32 \[2\]"),
        (lambda model, task, batch: 1.0, "gave float"),
        (lambda model, task, batch: None, "gave NoneType"),
        (lambda model, task, batch: torch.tensor(1.0), r"gave torch.float32 \[\] without a gradient"),
        (lambda model, task, batch: model(batch).mean() * 1j, r"gave torch.complex64 \[\]"),
    ],
    ids=["one per row", "a float", "nothing", "a constant", "a complex number"],
)
def test_losses(loss: Callable[..., Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        learned(loss)
