"""Fine-tune one expert: a linear probe for the head, then backbone and head together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supermerge.demo.pupils import Pupil

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


def fit(pupils: Sequence[Pupil], training: Training, progress: Callable[[int], None]) -> None:
    """Train one pupil, or several that share one backbone and take turns at random.

    No dropout, one thread's fixed order: the same seed gives the same expert. `progress` gets the number of steps done.
    """
    steps: list[tuple[Pupil, list[int]]] = []
    for number in range(training.epochs):
        order = random.Random(training.seed + number)
        epoch = [(pupil, batch) for pupil in pupils for batch in _epoch(pupil.lengths, training, order)]
        steps += order.sample(epoch, len(epoch)) if len(pupils) > 1 else epoch
    for pupil in pupils:
        pupil.model.eval()
        own = [batch for one, batch in steps if one is pupil]
        fit_probe(pupil.head, *_probed(pupil, own[: -(-training.probe_examples // training.batch_size)]))
    optimiser, schedule = _optimiser(pupils, training, len(steps))
    for done, (pupil, batch) in enumerate(steps):
        loss = nn.functional.cross_entropy(pupil.head(pupil.features(batch)), pupil.labels[batch])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress(done + 1)


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


def _epoch(lengths: Sequence[int], training: Training, order: random.Random) -> list[list[int]]:
    """Every example's number once, in batches of like length."""
    shuffled = order.sample(range(len(lengths)), len(lengths))
    chunk, size = training.batch_size * _SORTED_TOGETHER, training.batch_size
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), chunk):
        together = sorted(shuffled[start : start + chunk], key=lambda one: lengths[one])
        batches += [together[first : first + size] for first in range(0, len(together), size)]
    order.shuffle(batches)
    return batches


def _probed(pupil: Pupil, batches: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Features [n, width] of the untouched backbone, and labels [n]."""
    with torch.no_grad():
        return torch.cat([pupil.features(batch) for batch in batches]), torch.cat([pupil.labels[b] for b in batches])


def _optimiser(
    pupils: Sequence[Pupil], training: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    body = [one for one in pupils[0].model.base_model.parameters() if one.requires_grad]
    heads = [parameter for pupil in pupils for parameter in pupil.head.parameters()]
    rate = training.lr
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": rate}, {"params": heads, "lr": rate * training.head_lr_factor}],
        weight_decay=training.weight_decay,
        fused=True,
    )
    warm_up = max(1, round(training.warm_up * steps))

    def factor(step: int) -> float:
        return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
