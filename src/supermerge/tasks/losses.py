"""What a batch's logits should have been, and the supervised loss."""

from __future__ import annotations

import torch
from torch import Tensor

from supermerge.tasks.metrics import IGNORED


def aligned(task_type: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the targets they should predict, place by place.

    Classification and regression: as they are, [n, classes] and [n]. Generation: [n, tokens, vocabulary] and
    [n, tokens]; a decoder predicts the next token, so causal-lm drops the last logits and the first target.
    """
    if task_type == "causal-lm":
        return logits[:, :-1], labels[:, 1:]
    return logits, labels


def counted(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """[n, classes] and [n]: one row per example, or per target token that counts (targets other than −100)."""
    if logits.dim() == 2:
        return logits, targets
    counts = targets != IGNORED
    return logits[counts], targets[counts]


def supervised_loss(task_type: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy −log softmax(logits)[target] in nats; for regression the mean of (logit − target)².

    `logits` [n, classes] and `targets` [n], as `counted` gives them.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if task_type == "regression":
        return (logits.squeeze(-1) - targets.to(logits.dtype)).pow(2).mean()
    return torch.nn.functional.cross_entropy(logits, targets)
