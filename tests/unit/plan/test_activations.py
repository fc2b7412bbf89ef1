"""What the meta device says about activations, against a real forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from supermerge.plan import plan
from supermerge.plan.activations import Activations, activations
from supermerge.recipe import Recipe
from supermerge.resolve import opened

TOKENS, BATCH = 24, 40


@pytest.fixture
def model(tmp_path: Path) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=TOKENS,
    )
    model = BertForSequenceClassification(config)
    for name in ("base", "one"):
        model.save_pretrained(tmp_path / name)
        for tensor in model.parameters():
            tensor.data += 0.01
    return model.eval()


def found(directory: Path, **task: Any) -> Activations | None:
    about = {"type": "text-classification", "expert": "one", "test": "t.jsonl", "batch_size": BATCH, **task}
    recipe = Recipe.of(
        {
            "base": str(directory / "base"),
            "experts": {"one": str(directory / "one")},
            "method": "supermerge",
            "tasks": {"one": about},
        }
    )
    with opened(recipe) as sources:
        return activations(recipe, sources)


def test_what_a_backward_pass_needs(model: BertForSequenceClassification, tmp_path: Path) -> None:
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.zeros(BATCH, TOKENS, dtype=torch.long)).logits.sum()
    planned, scoring = found(tmp_path), found(tmp_path, max_length=1000)
    assert planned is not None
    # What is alive at once comes on top of what is saved.
    assert planned.learning - planned.scoring == pytest.approx(sum(saved.values()), rel=0.1)
    # Longer texts than the model has places for are cut.
    assert scoring == planned


def test_grows_with_the_batch(model: BertForSequenceClassification, tmp_path: Path) -> None:
    small, large = found(tmp_path), found(tmp_path, batch_size=2 * BATCH)
    assert small is not None
    assert large is not None
    assert large.learning == pytest.approx(2 * small.learning, rel=0.02)
    assert large.scoring == pytest.approx(2 * small.scoring, rel=0.02)


def test_is_part_of_the_plan(model: BertForSequenceClassification, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "base": str(tmp_path / "base"),
        "experts": {"one": str(tmp_path / "one")},
        "method": "supermerge",
    }
    task = {"type": "text-classification", "expert": "one", "validation": "v.jsonl", "batch_size": BATCH}
    one, two = (plan({**recipe, "tasks": {"one": {**task, "batch_size": size}}}) for size in (BATCH, 20 * BATCH))
    assert one.activations == two.activations == "counted"
    difference = found(tmp_path, batch_size=20 * BATCH), found(tmp_path)
    assert difference[0] is not None
    assert difference[1] is not None
    holds = [planned.phases[0].holds for planned in (one, two)]
    assert holds[1] - holds[0] == pytest.approx(difference[0].learning - difference[1].learning, rel=0.2)


def test_a_model_that_looks_at_values_stays_unknown(
    model: BertForSequenceClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = BertForSequenceClassification.forward

    def looking(self: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        return forward(self, input_ids[: int(input_ids.max()) + 1], **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", looking)
    assert found(tmp_path) is None
