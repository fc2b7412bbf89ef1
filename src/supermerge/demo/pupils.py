"""Who is trained: a classifier on a backbone, and the examples that it learns from, by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from supermerge.demo.sources.corpus import Example
from supermerge.tasks.pooled import pool


class Pupil(Protocol):
    """A classifier and its examples. `labels` [n] and `lengths` (batches hold examples of like length) are by number.

    What the model must not learn has `requires_grad` False.
    """

    model: PreTrainedModel
    head: nn.Linear
    labels: Tensor
    lengths: Sequence[int]

    def features(self, batch: Sequence[int]) -> Tensor:
        """What the head takes of the examples with these numbers, [batch, width]."""
        ...

    def save(self, directory: Path) -> None:
        """Write the model and what reads its inputs."""
        ...


class TextPupil:
    """A sequence classifier whose head is `classifier` on the mean of the last hidden states (`pooling: mean`).

    The word embeddings, half of the backbone, stay as they are: a few thousand short texts say little about 30,000
    words.
    """

    def __init__(self, base: Path, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForSequenceClassification.from_pretrained(base, **head_config(labels))
        self.model.get_input_embeddings().requires_grad_(False)
        self.head = cast(nn.Linear, self.model.classifier)
        texts = [example.text for example in examples]
        self._ids = self._tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
        self.lengths: Sequence[int] = [len(ids) for ids in self._ids]
        self.labels = torch.tensor([labels.index(example.label) for example in examples])

    def features(self, batch: Sequence[int]) -> Tensor:
        """The pooled states [batch, width]."""
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(self._ids[one]) for one in batch],
            batch_first=True,
            padding_value=self.model.config.pad_token_id or 0,
        )
        lengths = torch.tensor([self.lengths[one] for one in batch])
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        hidden = self.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return pool(hidden, mask, "mean")

    def save(self, directory: Path) -> None:
        """Write the model and its tokenizer."""
        self.model.save_pretrained(directory)
        self._tokenizer.save_pretrained(directory)


def head_config(labels: Sequence[str]) -> dict[str, object]:
    """What the config of a classifier says about its classes."""
    names = dict(enumerate(labels))
    return {"num_labels": len(labels), "id2label": names, "label2id": {name: index for index, name in names.items()}}
