from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from supermerge.checkpoint import Checkpoint
from supermerge.tasks.rows import Row
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.workbench import Workbench

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VOCABULARY = 30
TEXT = {
    "input_ids": torch.tensor([[3, 4, 5, 6, 2], [5, 6, 2, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
PIXELS = {"pixel_values": torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).sin()}
IDS: dict[str, Any] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def bert() -> Any:
    return tf.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=20, num_labels=3, pad_token_id=1, **SMALL)


def vit() -> Any:
    return tf.ViTConfig(image_size=16, patch_size=8, num_labels=3, **SMALL)


def llama(*, tied: bool = False) -> Any:
    return tf.LlamaConfig(
        vocab_size=VOCABULARY, num_key_value_heads=2, num_labels=3, tie_word_embeddings=tied, **IDS, **SMALL
    )


def t5() -> Any:
    return tf.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, num_labels=3,
        eos_token_id=2, pad_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip


def clip() -> Any:
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 20, **IDS, **SMALL}
    vision = {"image_size": 16, "patch_size": 8, "projection_dim": 12, **SMALL}
    return tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12, num_labels=3)


def mixtral() -> Any:
    return tf.MixtralConfig(
        vocab_size=VOCABULARY, num_key_value_heads=2, num_local_experts=3, num_labels=3, **IDS, **SMALL
    )


def dinov2(*, gated: bool = False) -> Any:
    return tf.Dinov2Config(image_size=16, patch_size=8, num_labels=3, use_swiglu_ffn=gated, **SMALL)


CASES: dict[str, Callable[[], tuple[Any, Any, str, dict[str, Tensor]]]] = {
    "bert": lambda: (tf.BertModel(bert()), tf.BertForSequenceClassification(bert()), "text-classification", TEXT),
    "bert-mlm": lambda: (
        tf.BertForMaskedLM(bert()), tf.BertForSequenceClassification(bert()), "text-classification", TEXT,
    ),
    "roberta": lambda: _both(
        tf.RobertaConfig(vocab_size=VOCABULARY, max_position_embeddings=20, num_labels=3, **IDS, **SMALL),
        tf.RobertaModel, tf.RobertaForSequenceClassification, "text-classification", TEXT,
    ),
    "distilbert": lambda: _both(
        tf.DistilBertConfig(vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3),
        tf.DistilBertModel, tf.DistilBertForSequenceClassification, "text-classification", TEXT,
    ),
    "vit": lambda: _both(vit(), tf.ViTModel, tf.ViTForImageClassification, "image-classification", PIXELS),
    "dinov2": lambda: _both(
        dinov2(), tf.Dinov2Model, tf.Dinov2ForImageClassification, "image-classification", PIXELS
    ),
    "dinov2-gated": lambda: _both(
        dinov2(gated=True), tf.Dinov2Model, tf.Dinov2ForImageClassification, "image-classification", PIXELS
    ),
    "clip-vision": lambda: (
        tf.CLIPVisionModel(clip().vision_config), tf.CLIPForImageClassification(clip()), "image-classification", PIXELS,
    ),
    "clip": lambda: _both(clip(), tf.CLIPModel, tf.CLIPForImageClassification, "image-classification", PIXELS),
    "llama": lambda: _both(
        llama(), tf.LlamaModel, tf.LlamaForSequenceClassification, "text-classification", TEXT
    ),
    "llama-lm-base": lambda: _both(
        llama(), tf.LlamaForCausalLM, tf.LlamaForSequenceClassification, "text-classification", TEXT
    ),
    "llama-lm": lambda: _both(llama(), tf.LlamaForCausalLM, tf.LlamaForCausalLM, "causal-lm", TEXT),
    "llama-lm-tied": lambda: _both(llama(tied=True), tf.LlamaForCausalLM, tf.LlamaForCausalLM, "causal-lm", TEXT),
    "gpt2": lambda: _both(gpt2(), tf.GPT2LMHeadModel, tf.GPT2ForSequenceClassification, "text-classification", TEXT),
    "gpt2-lm": lambda: _both(gpt2(), tf.GPT2LMHeadModel, tf.GPT2LMHeadModel, "causal-lm", TEXT),
    "t5": lambda: _both(
        t5(), tf.T5ForConditionalGeneration, tf.T5ForSequenceClassification, "text-classification", TEXT
    ),
    "t5-seq2seq": lambda: _both(
        t5(), tf.T5ForConditionalGeneration, tf.T5ForConditionalGeneration, "seq2seq",
        {**TEXT, "decoder_input_ids": torch.tensor([[0, 4], [0, 5]])},
    ),
    "mixtral": lambda: _both(
        mixtral(), tf.MixtralForCausalLM, tf.MixtralForSequenceClassification, "text-classification", TEXT
    ),
}  # fmt: skip


def gpt2() -> Any:
    return tf.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=20, num_labels=3, **IDS)


def _both(config: Any, base: Any, expert: Any, kind: str, inputs: dict[str, Tensor]) -> tuple[Any, ...]:
    return base(config), expert(config), kind, inputs


@dataclass(frozen=True)
class Case:
    """A base and an expert of one architecture, saved by transformers."""

    type: str
    inputs: dict[str, Tensor]
    base_class: Any
    expert_class: Any
    base: Checkpoint
    expert: Checkpoint

    @property
    def base_dir(self) -> Path:
        assert self.base.directory is not None
        return self.base.directory

    @property
    def expert_dir(self) -> Path:
        assert self.expert.directory is not None
        return self.expert.directory


def randomise(model: Any, seed: int) -> Any:
    """Every parameter drawn: nothing that was initialised to zero or one can hide a tensor that was not loaded."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, tuple[Any, ...]]]:
    """Directory with `base` and `expert`, and (type, inputs, classes), of a case; saved once."""

    @cache
    def save(name: str) -> tuple[Path, tuple[Any, ...]]:
        base, expert, kind, inputs = CASES[name]()
        directory = tmp_path_factory.mktemp(name)
        randomise(base, 1).save_pretrained(directory / "base")
        randomise(expert, 2).save_pretrained(directory / "expert")
        return directory, (kind, inputs, type(base), type(expert))

    return save


@pytest.fixture(scope="session")
def every_case() -> list[str]:
    """The names of all cases."""
    return list(CASES)


@pytest.fixture
def case(request: pytest.FixtureRequest, saved: Any, tmp_path: Path) -> Any:
    """A case of its own, whose files a test may change."""
    directory, about = saved(request.param)
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    with Checkpoint.open(tmp_path / "base") as base, Checkpoint.open(tmp_path / "expert") as expert:
        yield Case(*about, base, expert)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `case` without naming one runs for all."""
    if "case" in metafunc.fixturenames and not any(
        "case" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    ):
        metafunc.parametrize("case", list(CASES), indirect=True)


@pytest.fixture(scope="session")
def add_tokenizer() -> Callable[[Path], None]:
    """Writes a tokenizer that knows the letters a to f (10 to 15) as words."""

    def add(directory: Path) -> None:
        words = {"[bos]": 0, "[pad]": 1, "[eos]": 2, "[unk]": 3} | {f"[{i}]": i for i in range(4, 10)}
        words |= {letter: 10 + i for i, letter in enumerate("abcdef")}
        plain = Tokenizer(WordLevel(words, unk_token="[unk]"))
        plain.pre_tokenizer = Whitespace()
        plain.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
        tokenizer = tf.PreTrainedTokenizerFast(
            tokenizer_object=plain, pad_token="[pad]", eos_token="[eos]", bos_token="[bos]", unk_token="[unk]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )  # fmt: skip
        tokenizer.save_pretrained(directory)

    return add


@pytest.fixture(scope="session")
def add_processor() -> Callable[[Path], None]:
    """Writes an image processor for images of 16 by 16."""

    def add(directory: Path) -> None:
        tf.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory)

    return add


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., TaskSpec]:
    """The task of a case."""

    def make(case: Any, **fields: Any) -> TaskSpec:
        return TaskSpec(**{"type": case.type, "expert": "one", "test": "t.jsonl", "max_length": 6, **fields})

    return make


@pytest.fixture
def bench(
    case: Any, make_spec: Any, add_tokenizer: Callable[[Path], None], add_processor: Callable[[Path], None]
) -> Any:
    """Makes the workbench of one task, with the base's tokenizer and image processor."""
    add_tokenizer(case.base_dir)
    add_processor(case.base_dir)

    def make(**fields: Any) -> Workbench:
        return Workbench(case.base, {"one": case.expert}, {"task": make_spec(case, **fields)})

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> list[Row]:
    """Two labelled images."""
    rows = []
    for i, colour in enumerate([(200, 30, 40), (10, 20, 220)]):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (20, 12), colour).save(path)
        rows.append(Row(str(path), image=path, label=i))
    return rows
