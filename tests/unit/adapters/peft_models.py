"""Tiny models and adapters on them, trained by drawing every number at random: peft writes and judges them."""

from __future__ import annotations

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


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            attention_bias=True,
            tie_word_embeddings=False,
        )
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
        )
    )


def bert() -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            id2label={0: "a", 1: "b", 2: "c"},
        )
    )


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
        )
    )


@dataclass(frozen=True)
class Case:
    """A model and what peft is told to train of it."""

    model: Callable[[], PreTrainedModel]
    config: PeftConfig


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"], **settings})


CASES = {
    "lora": Case(llama, lora()),
    "rank and alpha patterns": Case(
        llama, lora(rank_pattern={"q_proj": 3, r"layers\.1\..*v_proj": 5}, alpha_pattern={r"layers\.0.*": 7})
    ),
    "rslora": Case(llama, lora(use_rslora=True)),
    "dora": Case(llama, lora(use_dora=True)),
    "some layers": Case(llama, lora(layers_to_transform=[1])),
    "all linear": Case(llama, lora(target_modules="all-linear")),
    "biases of the targets": Case(llama, lora(bias="lora_only")),
    "all biases": Case(llama, lora(bias="all")),
    "a bias of its own": Case(llama, lora(lora_bias=True)),
    "both biases": Case(llama, lora(lora_bias=True, bias="lora_only")),
    "modules to save": Case(llama, lora(modules_to_save=["lm_head", "norm"])),
    "embeddings": Case(llama, lora(target_modules=["embed_tokens", "q_proj"])),
    "embeddings, dora": Case(llama, lora(target_modules=["embed_tokens", "q_proj"], use_dora=True)),
    "conv1d": Case(gpt2, lora(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "conv1d, dora": Case(gpt2, lora(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_dora=True)),
    "a head": Case(bert, lora(target_modules=["query", "dense"], task_type="SEQ_CLS")),
    "t5": Case(t5, lora(target_modules=["q", "v", "wo"])),
    "ia3": Case(llama, IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3, t5": Case(t5, IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])),
    "ia3, conv1d": Case(
        gpt2,
        IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
    ),
    "ia3, a head": Case(
        bert,
        IA3Config(
            target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"], task_type="SEQ_CLS"
        ),
    ),
}


@dataclass
class Trained:
    """`base` and `adapter` are directories; `state` is the base's."""

    base: Path
    adapter: Path
    case: Case
    state: dict[str, Tensor] = field(default_factory=dict)

    def peft(self) -> nn.Module:
        """The adapter in peft, on the base, as it was saved."""
        model = self.case.model()
        model.load_state_dict(self.state)
        return PeftModel.from_pretrained(model, str(self.adapter)).eval()


def save_base(directory: Path, model: Callable[[], PreTrainedModel], seed: int = 0) -> dict[str, Tensor]:
    """Write a model whose every parameter is drawn, biases and norms too; its state."""
    torch.manual_seed(seed)
    made = model()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(directory)
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def save_adapter(directory: Path, case: Case, state: dict[str, Tensor], seed: int = 1) -> Path:
    """Write an adapter whose trainable numbers are moved at random."""
    torch.manual_seed(seed)
    model = case.model()
    model.load_state_dict(state)
    tuned = get_peft_model(model, case.config)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    tuned.save_pretrained(str(directory))
    return directory


def logits(model: nn.Module) -> Tensor:
    """What the model says to IDS; encoder-decoders also get them as their own output."""
    extra = {"decoder_input_ids": IDS} if getattr(model.config, "is_encoder_decoder", False) else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **extra).logits
