"""Log-likelihoods of what a model might have said about one example, and how much each counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from blake3 import blake3
from torch import Tensor

from supermerge.errors import RecipeError
from supermerge.events import emit
from supermerge.tasks.losses import counted

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

Term = tuple[Tensor, float]
"""A scalar whose squared gradient, times the number, is a part of the Fisher information."""


def said(
    bench: Workbench, kind: str, examples: Mapping[str, Sequence[Example]], seed: int
) -> Iterator[tuple[Tensor, float, int]]:
    """(term, weight, how many terms of the same forward pass follow), example by example: one forward pass each.

    What is drawn depends on the seed, the kind, the task and the example's position.
    """
    count, done = sum(len(part) for part in examples.values()), 0
    for task, part in examples.items():
        for position, example in enumerate(part):
            key = "\0".join((str(seed), kind, task, str(position)))
            draw = torch.Generator().manual_seed(int.from_bytes(blake3(key.encode()).digest(length=7), "little"))
            logits, targets = bench.places(task, bench.batch(task, [example]))
            found = terms(kind, bench.specs[task].type, logits, targets, draw)
            for left, (term, weight) in zip(range(len(found) - 1, -1, -1), found, strict=True):
                yield term, weight, left
            done += 1
            emit("progress", phase="statistics", done=done, total=count, unit="examples")


def terms(kind: str, task_type: str, logits: Tensor, targets: Tensor | None, draw: torch.Generator) -> Sequence[Term]:
    """The terms of one example: Σ weight · (∂ term / ∂θ)² is its Fisher information.

    Classification: log p(y|x), for all y with weight p(y|x) (kinds that end with `exact`), for one y
    drawn from it (`sampled`), or for the label (`empirical`). Generation: the sum over tokens of log p(token | before),
    drawn or given. Regression is a normal distribution of variance 1 around the output f: E_y (y − f)² (∂f)² = (∂f)²,
    or with the label for y.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows, labels = (wide, targets) if targets is None else counted(wide, targets)
    estimator = kind.rpartition("_")[2]
    if estimator == "empirical" and labels is None:
        raise RecipeError(f"{kind} needs labelled examples.")
    if task_type == "regression":
        value = rows.reshape(())
        if estimator != "empirical" or labels is None:
            return [(value, 1.0)]
        return [(-0.5 * (labels.to(value).reshape(()) - value) ** 2, 1.0)]
    log_p = rows.log_softmax(-1)
    if estimator == "exact":
        if len(log_p) > 1:
            raise RecipeError(
                "The exact Fisher information of generated text is a sum over all texts.",
                hint="Use estimator sampled or empirical for tasks that generate.",
            )
        return list(zip(log_p[0], log_p[0].detach().exp().tolist(), strict=True))
    if estimator == "sampled" or labels is None:
        labels = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=draw)[:, 0].to(log_p.device)
    return [(log_p.gather(1, labels[:, None]).sum(), 1.0)]
