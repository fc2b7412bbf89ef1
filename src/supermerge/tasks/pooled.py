"""A linear classifier on a pooled backbone, for experts whose head is nothing but `classifier.weight` and `.bias`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from supermerge.checkpoint import TensorSource
from supermerge.errors import CheckpointError
from supermerge.tasks.heads import own_tensor
from supermerge.tasks.host import Host


class PooledClassifier(nn.Module):
    """logits = W · pool(h) + b, with h [batch, tokens, width] the last hidden state of the shared backbone.

    `cls` takes the first token, `last` the last one that is not padding, `mean` averages the tokens that are not
    padding; of an image it averages all patches (a convolutional map: all places), without the class token.
    """

    def __init__(self, backbone: nn.Module, pooling: str, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.classifier = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.classifier.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.classifier.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, **inputs: Any) -> SequenceClassifierOutput:
        """`.logits` [batch, classes], from what the backbone takes."""
        hidden = self.backbone(**inputs).last_hidden_state
        if hidden.dim() == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        elif "pixel_values" in inputs and self.pooling == "mean":
            hidden = hidden[:, 1:]
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        return SequenceClassifierOutput(logits=self.classifier(pool(hidden, mask, self.pooling)))


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """[batch, tokens, width] → [batch, width]; `mask` [batch, tokens] is 0 at padding."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def pooled_head(
    host: Host, pooling: str, sources: Sequence[TensorSource], label: str
) -> tuple[PooledClassifier, dict[str, Tensor]]:
    """The classifier over the host's backbone, and its own tensors, from the first source that has them."""
    for source in sources:
        weight = own_tensor(source, ["classifier.weight"], (None, None), host)
        if weight is not None:
            bias = own_tensor(source, ["classifier.bias"], (weight.shape[0],), host)
            own = {"classifier.weight": weight} | ({} if bias is None else {"classifier.bias": bias})
            return PooledClassifier(backbone_of(host.model), pooling, weight, bias), own
    raise CheckpointError(
        f"{label} has no classifier.weight, which a head with pooling: {pooling} is made of.",
        hint="Leave pooling out to use the model class's own head, or give the task a head that has the tensor.",
    )


def backbone_of(model: PreTrainedModel) -> nn.Module:
    """What gives one hidden state per input token: the encoder of an encoder-decoder, the vision side of a CLIP."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    body = model.base_model
    return getattr(body, "vision_model", body)
