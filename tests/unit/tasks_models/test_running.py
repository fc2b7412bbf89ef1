"""A model at work on examples: what it says of them is an error of the checkpoint, and no bug of ours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError
from supermerge.tasks.models import running
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.workbench import Workbench

SMALL: dict[str, Any] = {
    "vocab_size": 30, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 20,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip


def bench_of(base: Any, expert: Any, kind: str, directory: Path, add_tokenizer: Callable[[Path], None]) -> Workbench:
    base.save_pretrained(directory / "base")
    expert.save_pretrained(directory / "expert")
    add_tokenizer(directory / "base")
    spec = TaskSpec.model_validate({"type": kind, "expert": "one", "test": "t.jsonl"})
    experts = {"one": Checkpoint.open(directory / "expert")}
    return Workbench(Checkpoint.open(directory / "base"), experts, {"task": spec})


def test_a_classifier_that_looks_for_an_end_that_is_not_there(
    tmp_path: Path, add_tokenizer: Callable[[Path], None]
) -> None:
    config = tf.BartConfig(**SMALL)
    models = tf.BartModel(config), tf.BartForSequenceClassification(config)
    bench = bench_of(*models, "text-classification", tmp_path, add_tokenizer)
    batch = bench.collate("task", [Row("t:1", texts=("a b",), label=0)])
    said = "task 'task': BartForSequenceClassification cannot run on its examples: .*<eos>"
    with pytest.raises(CheckpointError, match=said):
        bench.logits("task", batch)


def test_want_of_memory_is_no_fault_of_the_model() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"), running("task", torch.nn.Identity()):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")


def test_parameters_that_the_class_computes_are_in_no_file(
    tmp_path: Path, add_tokenizer: Callable[[Path], None]
) -> None:
    """Marian's table of sines: `save_pretrained` leaves it out."""
    config = tf.MarianConfig(**SMALL)
    bench = bench_of(tf.MarianMTModel(config), tf.MarianMTModel(config), "seq2seq", tmp_path, add_tokenizer)
    batch = bench.collate("task", [Row("t:1", prompt="a b c", target="d e")])
    loaded: Any = tf.MarianMTModel.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad():
        assert torch.equal(bench.places("task", batch)[0], loaded(**batch).logits)
    assert not any("embed_positions" in name for name in bench.model.state_dict())


@pytest.mark.parametrize("case", ["gpt2-lm"], indirect=True)
def test_padding_is_a_token(case: Any, bench: Callable[..., Workbench]) -> None:
    """Early conversions of Llama say −1."""
    made: Any = bench()
    made.heads["task"].module.config.pad_token_id = -1
    made.tokenizer("task").pad_token = None
    assert made.pad_id("task") == 2


@pytest.mark.parametrize("case", ["vit"], indirect=True)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": {"height": "a", "width": 16}}, "cannot be interpreted as an integer"),
        ({"size": {"height": -5, "width": 16}}, "must be > 0"),
        ({"image_mean": [0.5]}, "mean must have 3 elements"),
        ({"image_std": [math.nan, 1.0, 1.0]}, "NaN or infinite"),
        ({"rescale_factor": "x"}, "ufunc"),
    ],
)
def test_an_image_processor_that_cannot_work(
    case: Any, bench: Callable[..., Workbench], pictures: list[Row], settings: dict[str, Any], says: str
) -> None:
    made = bench()
    path = case.base_dir / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(CheckpointError, match=rf"0\.png: the ViT\w+ of the model cannot process this image: .*{says}"):
        made.collate("task", pictures)


@pytest.mark.parametrize("case", ["vit"], indirect=True)
@pytest.mark.parametrize("content", ["[]", '{"image_processor_type": 5}'])
def test_an_image_processor_of_no_kind(
    case: Any, bench: Callable[..., Workbench], pictures: list[Row], content: str
) -> None:
    made = bench()
    (case.base_dir / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="transformers cannot read its image processor"):
        made.collate("task", pictures)


@pytest.mark.parametrize(
    ("case", "name", "change", "says"),
    [
        ("bert", "tokenizer.json", {"model": {"type": "WordLevel", "vocab": {"a": 10}, "unk_token": "?"}}, "Missing"),
        ("gpt2-lm", "tokenizer_config.json", {"model_max_length": "x"}, "'>' not supported"),
    ],
    indirect=["case"],
)
def test_a_tokenizer_that_cannot_work(
    case: Any, bench: Callable[..., Workbench], name: str, change: dict[str, Any], says: str
) -> None:
    made = bench()
    path = case.base_dir / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=f"task 'task': its tokenizer cannot read the examples: .*{says}"):
        made.encode("task", [Row("t:1", texts=("a b",), prompt="a b", target="c", label=0)])


@pytest.mark.parametrize("case", ["bert"], indirect=True)
def test_a_tokenizer_without_its_model(case: Any, bench: Callable[..., Workbench]) -> None:
    made = bench()
    path = case.base_dir / "tokenizer.json"
    path.write_text(json.dumps({key: part for key, part in json.loads(path.read_text()).items() if key != "model"}))
    with pytest.raises(CheckpointError, match="transformers cannot read its tokenizer: Model missing"):
        made.encode("task", [Row("t:1", texts=("a b",), label=0)])
