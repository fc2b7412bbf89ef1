"""Fine-tune one expert: a linear probe for the head, then backbone and head together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from supermerge.demo.sources.corpus import Example
from supermerge.tasks.pooled import pool

# Batches of examples of like length waste little on padding; this many batches are sorted together.
_SORTED_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Training:
    """How an expert is trained.

    `lr` is the peak rate of the backbone, reached after the share `warm_up` of the steps and then lowered linearly to
    zero; the head starts as the probe of `probe_examples` and moves `head_lr_factor` times as fast. `max_length` is in
    tokens.
    """

    lr: float = 5e-4
    head_lr_factor: float = 10.0
    probe_examples: int = 1000
    epochs: int = 1
    batch_size: int = 16
    warm_up: float = 0.1
    weight_decay: float = 0.01
    max_length: int = 40
    seed: int = 0

    def steps(self, examples: int) -> int:
        """Optimiser steps that so many examples make."""
        return self.epochs * -(-examples // self.batch_size)


@dataclass(frozen=True, slots=True)
class _Encoded:
    ids: list[int]
    label: int


def train_expert(
    base: Path,
    examples: Sequence[Example],
    labels: Sequence[str],
    training: Training,
    directory: Path,
    progress: Callable[[int], None],
) -> None:
    """Train on `examples` and save a sequence classifier with its tokenizer into `directory`.

    The head is `classifier` on the mean of the last hidden states (recipe: `pooling: mean`). The word embeddings, half
    of the backbone, stay as they are: a few thousand short texts say little about 30,000 words. No dropout, one
    thread's fixed order: the same seed gives the same expert. `progress` gets the number of steps done.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    names = dict(enumerate(labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(labels), id2label=names, label2id={name: index for index, name in names.items()}
    )
    model.eval()
    texts = [example.text for example in examples]
    ids = tokenizer(texts, truncation=True, max_length=training.max_length)["input_ids"]
    encoded = [_Encoded(one, labels.index(example.label)) for one, example in zip(ids, examples, strict=True)]
    epochs = [_epoch(encoded, training, random.Random(training.seed + number)) for number in range(training.epochs)]
    steps = [batch for epoch in epochs for batch in epoch]
    head = cast(nn.Linear, model.classifier)
    fit_probe(head, *_features(model, steps[: -(-training.probe_examples // training.batch_size)]))
    optimiser, schedule = _optimiser(model, head, training, len(steps))
    for done, batch in enumerate(steps):
        loss = nn.functional.cross_entropy(head(_pooled(model, batch)), _labels(batch))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress(done + 1)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def fit_probe(head: nn.Linear, features: Tensor, labels: Tensor, decay: float = 1e-3) -> None:
    """Set `head` to the logistic regression of `labels` [n] on `features` [n, width], by L-BFGS from zero.

    Features are scaled by one number, so that `decay` means the same for every backbone; the head takes them unscaled.
    """
    scale = features.std(dim=0).mean()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(head(features / scale), labels) + decay * head.weight.pow(2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        head.weight.div_(scale)


def _epoch(examples: list[_Encoded], training: Training, order: random.Random) -> list[list[_Encoded]]:
    shuffled = order.sample(examples, len(examples))
    chunk, size = training.batch_size * _SORTED_TOGETHER, training.batch_size
    batches: list[list[_Encoded]] = []
    for start in range(0, len(shuffled), chunk):
        together = sorted(shuffled[start : start + chunk], key=lambda one: len(one.ids))
        batches += [together[first : first + size] for first in range(0, len(together), size)]
    order.shuffle(batches)
    return batches


def _features(model: PreTrainedModel, batches: Sequence[list[_Encoded]]) -> tuple[Tensor, Tensor]:
    """Pooled states [n, width] of the untouched backbone, and labels [n]."""
    with torch.no_grad():
        return torch.cat([_pooled(model, batch) for batch in batches]), torch.cat([_labels(one) for one in batches])


def _pooled(model: PreTrainedModel, batch: list[_Encoded]) -> Tensor:
    ids = nn.utils.rnn.pad_sequence(
        [torch.tensor(one.ids) for one in batch], batch_first=True, padding_value=model.config.pad_token_id or 0
    )
    lengths = torch.tensor([len(one.ids) for one in batch])
    mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
    hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    return pool(hidden, mask, "mean")


def _labels(batch: list[_Encoded]) -> Tensor:
    return torch.tensor([one.label for one in batch])


def _optimiser(
    model: PreTrainedModel, head: nn.Linear, training: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    model.get_input_embeddings().requires_grad_(False)
    body = [one for one in model.base_model.parameters() if one.requires_grad]
    rate = training.lr
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": rate}, {"params": list(head.parameters()), "lr": rate * training.head_lr_factor}],
        weight_decay=training.weight_decay,
        fused=True,
    )
    warm_up = max(1, round(training.warm_up * steps))

    def factor(step: int) -> float:
        return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
