"""What from_pretrained would initialise or ignore silently is found and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel

from supermerge.checkpoint import Checkpoint
from supermerge.errors import RefusedError
from supermerge.tasks.loadable import loading_differences
from supermerge.verify import require_loadable

CONFIG = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    BertModel(CONFIG, add_pooling_layer=False).save_pretrained(tmp_path)
    return tmp_path


def differences(directory: Path, *, whole: bool = True) -> list[str]:
    with Checkpoint.open(directory) as checkpoint:
        name, found = loading_differences(checkpoint, whole=whole)
    assert name == "BertModel"
    return found


def change(directory: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = dict(load_file(directory / "model.safetensors"))
    edit(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_model_has_no_differences(saved: Path) -> None:
    assert differences(saved) == []


def test_missing_and_misshapen_tensors(saved: Path) -> None:
    change(saved, lambda w: (w.pop(QUERY), w.update({"embeddings.word_embeddings.weight": torch.ones(9, 8)})))
    assert differences(saved, whole=False) == [
        f"{QUERY} is missing",
        "embeddings.word_embeddings.weight has shape [9, 8], expected is [20, 8]",
    ]
    with Checkpoint.open(saved) as checkpoint, pytest.raises(RefusedError, match="does not load whole as BertModel"):
        require_loadable(checkpoint, whole=False)


def test_tensors_without_a_place_count_where_the_whole_file_is_ours(saved: Path) -> None:
    change(saved, lambda w: w.update({"cls.seq_relationship.weight": torch.ones(2, 8)}))
    assert differences(saved) == ["cls.seq_relationship.weight has no place in it"]
    assert differences(saved, whole=False) == []


def test_tied_tensors_may_be_stored_once_or_twice(tmp_path: Path) -> None:
    model = BertForMaskedLM(CONFIG)
    model.save_pretrained(tmp_path)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert loading_differences(checkpoint, whole=True) == ("BertForMaskedLM", [])
    words = load_file(tmp_path / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    change(tmp_path, lambda w: w.update({"cls.predictions.decoder.weight": words.clone()}))
    with Checkpoint.open(tmp_path) as checkpoint:
        assert loading_differences(checkpoint, whole=True) == ("BertForMaskedLM", [])


@pytest.mark.parametrize(
    "config",
    [
        "{}",
        '{"model_type": "bert", "architectures": ["NoSuchClass"]}',
        '{"model_type": "no-such-type", "architectures": ["BertModel"]}',
        '{"model_type": "bert", "architectures": ["BertModel"], "num_attention_heads": 5}',
    ],
)
def test_what_transformers_does_not_have_is_not_compared(saved: Path, config: str) -> None:
    (saved / "config.json").write_text(config)
    with Checkpoint.open(saved) as checkpoint:
        assert loading_differences(checkpoint, whole=True) == (None, [])
