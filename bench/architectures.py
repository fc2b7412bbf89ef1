"""The models that the benches build from their configurations, with random weights: no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10


@dataclass(frozen=True, slots=True)
class Architecture:
    """A backbone, and a batch of `n` inputs for it."""

    build: Callable[[], Any]
    batch: Callable[[int, torch.Generator], dict[str, Tensor]]


def _clip_vit_b32() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            image_size=224,
            patch_size=32,
        )
    )


def _minilm() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536))


def _dinov2_small() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(
        Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    )


def _llama_tiny() -> nn.Module:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(
            vocab_size=32000,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
        )
    )


def _pixels(size: int) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    return lambda n, generator: {"pixel_values": torch.randn(n, 3, size, size, generator=generator)}


def _tokens(length: int, vocabulary: int) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    return lambda n, generator: {"input_ids": torch.randint(0, vocabulary, (n, length), generator=generator)}


ARCHITECTURES = {
    "clip-vit-b32": Architecture(_clip_vit_b32, _pixels(224)),
    "minilm": Architecture(_minilm, _tokens(64, 30522)),
    "dinov2-small": Architecture(_dinov2_small, _pixels(56)),
    "llama-tiny": Architecture(_llama_tiny, _tokens(64, 32000)),
}
