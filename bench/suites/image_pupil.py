"""An image classifier on DINOv2 that is trained as the demo trains its experts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

from supermerge.demo.pupils import head_config


class ImagePupil:
    """A Dinov2ForImageClassification: its head takes the class token beside the mean of the patches, [batch, 768]."""

    def __init__(self, base: Path, rows: Sequence[dict[str, str]], labels: Sequence[str]) -> None:
        self._processor = AutoImageProcessor.from_pretrained(base)
        self.model = AutoModelForImageClassification.from_pretrained(base, **head_config(labels))
        self.head = cast(nn.Linear, self.model.classifier)
        pixels = [self._processor(Image.open(row["image"]), return_tensors="pt")["pixel_values"] for row in rows]
        self._pixels = torch.cat(pixels)
        self.lengths: Sequence[int] = [1] * len(rows)
        self.labels = torch.tensor([labels.index(row["label"]) for row in rows])

    def features(self, batch: Sequence[int]) -> Tensor:
        """What the head takes, [batch, 768]."""
        hidden = self.model.base_model(pixel_values=self._pixels[list(batch)]).last_hidden_state
        return torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=1)

    def save(self, directory: Path) -> None:
        """Write the model and its image processor."""
        self.model.save_pretrained(directory)
        self._processor.save_pretrained(directory)
