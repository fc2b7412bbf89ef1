"""Tiny models and adapters on them, trained by drawing every number at random: peft writes and judges them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 32
IDS = torch.tensor([[1, 5, 9, 30, 2], [7, 7, 3, 0, 11]])
WIDE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24}
LAYERS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = LlamaConfig(**WIDE, **LAYERS, num_key_value_heads=1, attention_bias=True, tie_word_embeddings=False)
GPT2 = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
BERT = BertConfig(**WIDE, **LAYERS, id2label={0: "a", 1: "b", 2: "c"})
T5 = T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LLAMA)


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2)


def bert() -> PreTrainedModel:
    return BertForSequenceClassification(BERT)


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(T5)


@dataclass(frozen=True)
class Case:
    """A model and what peft is told to train of it."""

    model: Callable[[], PreTrainedModel]
    config: PeftConfig


def lora(model: Callable[[], PreTrainedModel] = llama, **settings: Any) -> Case:
    """LoRA, by default of rank 2 on the queries and values of a Llama."""
    return Case(model, LoraConfig(**{"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"], **settings}))


def ia3(model: Callable[[], PreTrainedModel], targets: list[str], feedforward: str, **settings: Any) -> Case:
    """IA3 on `targets` and on a layer of the feed-forward network, whose inputs are scaled."""
    targets = [*targets, feedforward]
    return Case(model, IA3Config(target_modules=targets, feedforward_modules=[feedforward], **settings))


CONV1D: dict[str, Any] = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
EMBEDDINGS: dict[str, Any] = {"target_modules": ["embed_tokens", "q_proj"]}
CASES = {
    "lora": lora(),
    "rank and alpha patterns": lora(
        rank_pattern={"q_proj": 3, r"layers\.1\..*v_proj": 5}, alpha_pattern={r"layers\.0.*": 7}
    ),
    "rslora": lora(use_rslora=True),
    "dora": lora(use_dora=True),
    "some layers": lora(layers_to_transform=[1]),
    "all linear": lora(target_modules="all-linear"),
    "biases of the targets": lora(bias="lora_only"),
    "all biases": lora(bias="all"),
    "a bias of its own": lora(lora_bias=True),
    "both biases": lora(lora_bias=True, bias="lora_only"),
    "modules to save": lora(modules_to_save=["lm_head", "norm"]),
    "embeddings": lora(**EMBEDDINGS),
    "embeddings, dora": lora(**EMBEDDINGS, use_dora=True),
    "conv1d": lora(gpt2, **CONV1D),
    "conv1d, dora": lora(gpt2, **CONV1D, use_dora=True),
    "a head": lora(bert, target_modules=["query", "dense"], task_type="SEQ_CLS"),
    "t5": lora(t5, target_modules=["q", "v", "wo"]),
    "ia3": ia3(llama, ["k_proj", "v_proj"], "down_proj"),
    "ia3, t5": ia3(t5, ["k", "v"], "wo"),
    "ia3, conv1d": ia3(gpt2, ["c_attn"], "mlp.c_proj", fan_in_fan_out=True),
    "ia3, a head": ia3(bert, ["key", "value"], "output.dense", task_type="SEQ_CLS"),
}


@dataclass
class Trained:
    """`base` and `adapter` are directories; `state` is the base's."""

    base: Path
    adapter: Path
    case: Case
    state: dict[str, Tensor] = field(default_factory=dict)

    def model(self) -> PreTrainedModel:
        """The base."""
        model = self.case.model()
        model.load_state_dict(self.state)
        return model

    def peft(self, adapter: Path | None = None) -> nn.Module:
        """The adapter in peft, or another one, on the base, as it was saved."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftModel.from_pretrained(self.model(), str(adapter or self.adapter)).eval()


def save_base(directory: Path, model: Callable[[], PreTrainedModel], seed: int = 0) -> dict[str, Tensor]:
    """Write a model whose every parameter is drawn, biases and norms too; its state."""
    torch.manual_seed(seed)
    made = model()
    move(made, 0.1)
    made.save_pretrained(directory)
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def save_adapter(trained: Trained, seed: int) -> Trained:
    """Write an adapter whose trainable numbers are moved at random."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(trained.model(), trained.case.config)
        move(tuned, 0.2)
        tuned.save_pretrained(str(trained.adapter))
    return trained


@torch.no_grad()
def move(model: nn.Module, size: float) -> None:
    """Move every number that is trained, at random."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(size * torch.randn_like(parameter))


def logits(model: nn.Module) -> Tensor:
    """What the model says to IDS; encoder-decoders also get them as their own output."""
    extra = {"decoder_input_ids": IDS} if getattr(model.config, "is_encoder_decoder", False) else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **extra).logits
