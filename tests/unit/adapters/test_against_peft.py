"""Every feature of an adapter: seen here as the model that peft makes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from peft_models import CASES, Trained, logits

from supermerge import merge
from supermerge.checkpoint import Checkpoint, open_expert


def worked_out(trained: Trained) -> dict[str, torch.Tensor]:
    """The tensors of the adapted model under the names of the model's state."""
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(trained.base))
        expert = open_expert(trained.adapter, base, stack)
        return {name: expert.read(name).clone() for name in expert.tensors}


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_is_the_model_that_peft_makes_of_it(name: str, trained: Callable[[str], Trained]) -> None:
    made = trained(name)
    oracle, model = logits(made.peft()), made.model()
    before = logits(model)
    missing, unexpected = model.load_state_dict(worked_out(made), strict=False)
    tied = set(made.state) - set(load_file(made.base / "model.safetensors"))
    assert (set(missing), unexpected) == (tied, [])
    assert float((before - oracle).abs().max()) > 1e-3
    torch.testing.assert_close(logits(model), oracle, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lora", "dora", "both biases", "conv1d", "ia3"])
def test_one_adapter_with_weight_1_is_its_own_model(name: str, trained: Callable[[str], Trained]) -> None:
    made = trained(name)
    model = made.case.model()
    merged = merge(made.base, {"one": made.adapter}, "task_arithmetic", [1.0])
    model.load_state_dict(merged, strict=False)
    torch.testing.assert_close(logits(model), logits(made.peft()), rtol=0, atol=1e-5)
