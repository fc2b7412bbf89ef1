"""Tiny models of four families, perturbed copies as experts, and an autograd reference that holds all task vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

Built = tuple[nn.Module, Callable[[nn.Module, str, Tensor], Tensor], list[Tensor]]


def build(architecture: str) -> Built:
    """A seeded tiny model in float64, its loss, and two batches (one per task)."""
    torch.manual_seed(0)
    model, loss, batches = _BUILDERS[architecture]()
    return model.double().eval(), loss, batches


def _token_batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 50, (3, 7), generator=generator) for _ in range(2)]


def _bert() -> Built:
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        num_labels=3,
    )

    def loss(model: nn.Module, task: str, ids: Tensor) -> Tensor:
        labels = ids[:, 0] % 3 if task == "a" else ids[:, 1] % 3
        return nn.functional.cross_entropy(model(input_ids=ids).logits, labels)

    return BertForSequenceClassification(config), loss, _token_batches()


def _vit() -> Built:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )

    def loss(model: nn.Module, task: str, pixels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(pixel_values=pixels).logits, torch.tensor([0, 1, 2]))

    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    return ViTForImageClassification(config), loss, batches


def _llama() -> Built:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config), lambda model, task, ids: model(input_ids=ids, labels=ids).loss, _token_batches()


def _t5() -> Built:
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
    return (
        T5ForConditionalGeneration(config),
        lambda model, task, ids: model(input_ids=ids, labels=ids.flip(1)).loss,
        _token_batches(),
    )


_BUILDERS = {"bert": _bert, "vit": _vit, "llama": _llama, "t5": _t5}
ARCHITECTURES = tuple(_BUILDERS)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict, without the further names of tied tensors, as a checkpoint file has it."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach().clone()
    return state


def make_experts(base: dict[str, Tensor], count: int = 3, scale: float = 0.05) -> dict[str, dict[str, Tensor]]:
    """Experts that differ from the base by seeded noise."""
    experts = {}
    for i in range(count):
        generator = torch.Generator().manual_seed(100 + i)
        experts[f"expert{i}"] = {
            name: tensor + scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor.clone()
            for name, tensor in base.items()
        }
    return experts
