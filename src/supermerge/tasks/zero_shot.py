"""A zero-shot image head: the classes are text embeddings, and the nearest one to the image's embedding wins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from supermerge.checkpoint import TensorSource
from supermerge.errors import CheckpointError
from supermerge.tasks.heads import own_tensor
from supermerge.tasks.host import Host

EMBEDDINGS = "text_embeds"
SCALE = "logit_scale"


class ZeroShotClassifier(nn.Module):
    """logits = exp(s) · x Tᵀ, x and T [classes, width] being the normalised embeddings of the image and of the classes.

    s is the file's `logit_scale`, else the model's own. Source: CLIP, https://arxiv.org/abs/2103.00020.
    """

    def __init__(self, model: PreTrainedModel, embeddings: Tensor, scale: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.text_embeds = nn.Parameter(nn.functional.normalize(embeddings, dim=-1), requires_grad=False)
        self.own_scale = None if scale is None else nn.Parameter(scale, requires_grad=False)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """`.logits` [batch, classes] of images [batch, channels, height, width]."""
        image = nn.functional.normalize(image_embeddings(self.model, pixel_values), dim=-1)
        scale: Any = self.model.logit_scale if self.own_scale is None else self.own_scale
        return ImageClassifierOutput(logits=scale.exp() * image @ self.text_embeds.T)


def image_embeddings(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """The projected image embeddings [batch, width] of a CLIP-like model."""
    find: Any = getattr(model, "get_image_features", None)
    if find is None:
        return model(pixel_values=pixel_values).image_embeds
    features = find(pixel_values=pixel_values)
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def gives_image_embeddings(kind: type) -> bool:
    """Whether a model class projects images into the space of its text embeddings."""
    return hasattr(kind, "get_image_features") or kind.__name__.endswith("VisionModelWithProjection")


def zero_shot_head(host: Host, embeddings: TensorSource) -> tuple[ZeroShotClassifier, dict[str, Tensor]]:
    """The head, and its own tensors: `text_embeds` [classes, width] (or the file's only tensor) and `logit_scale` [].

    CheckpointError where the widths differ, where a class's embedding has no direction, or where neither the file nor
    the model has a logit scale.
    """
    if not gives_image_embeddings(type(host.model)):
        raise CheckpointError(
            f"{host.base.label}: {type(host.model).__name__} has no image embeddings to compare with text embeddings.",
            hint="A zero-shot head needs a CLIP-like base that has its visual projection.",
        )
    others = [name for name in embeddings.tensors if name not in (EMBEDDINGS, SCALE)]
    names = [EMBEDDINGS, *(others if len(others) == 1 else [])]
    found = own_tensor(embeddings, names, (None, _width(host.model)), host)
    scale = own_tensor(embeddings, [SCALE], (), host)
    if found is None or (scale is None and not hasattr(host.model, SCALE)):
        lacking = EMBEDDINGS if found is None else SCALE
        raise CheckpointError(
            f"{embeddings.label} has no tensor {lacking}, and {type(host.model).__name__} has none either.",
            hint=f"Save {EMBEDDINGS} [classes, width] and {SCALE} (a logarithm) in one safetensors file.",
        )
    blank = [row for row, embedding in enumerate(found) if not embedding.any()]
    if blank:
        raise CheckpointError(
            f"{embeddings.label}: the text embedding of class {blank[0]} is all zeros.",
            hint="Every class needs an embedding, which the embeddings of images are compared with.",
        )
    own = {EMBEDDINGS: found} | ({} if scale is None else {SCALE: scale})
    return ZeroShotClassifier(host.model, found, scale), own


def _width(model: PreTrainedModel) -> int:
    projection: Any = getattr(model, "visual_projection", None)
    return projection.out_features if projection is not None else model.config.projection_dim
