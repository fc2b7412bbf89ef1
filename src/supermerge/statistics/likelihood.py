"""Log-likelihoods of what a model might have said about one example, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supermerge.errors import RecipeError
from supermerge.tasks.losses import counted

Term = tuple[Tensor, float]
"""A scalar whose squared gradient, times the number, is a part of the Fisher information."""


def terms(kind: str, task_type: str, logits: Tensor, targets: Tensor | None, draw: torch.Generator) -> Sequence[Term]:
    """The terms of one example: Σ weight · (∂ term / ∂θ)² is its Fisher information.

    Classification: log p(y|x), for all y with weight p(y|x) (`fisher_exact`), for one y drawn from it
    (`fisher_sampled`), or for the label (`fisher_empirical`). Generation: the sum over tokens of log p(token | before),
    drawn or given. Regression is a normal distribution of variance 1 around the output f: E_y (y − f)² (∂f)² = (∂f)²,
    or with the label for y.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows, labels = (wide, targets) if targets is None else counted(wide, targets)
    if kind == "fisher_empirical" and labels is None:
        raise RecipeError(f"{kind} needs labelled examples.")
    if task_type == "regression":
        value = rows.reshape(())
        if kind != "fisher_empirical" or labels is None:
            return [(value, 1.0)]
        return [(-0.5 * (labels.to(value).reshape(()) - value) ** 2, 1.0)]
    log_p = rows.log_softmax(-1)
    if kind == "fisher_exact":
        if len(log_p) > 1:
            raise RecipeError(
                "The exact Fisher information of generated text is a sum over all texts.",
                hint="Use estimator sampled or empirical for tasks that generate.",
            )
        return list(zip(log_p[0], log_p[0].detach().exp().tolist(), strict=True))
    if kind == "fisher_sampled" or labels is None:
        labels = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=draw)[:, 0].to(log_p.device)
    return [(log_p.gather(1, labels[:, None]).sum(), 1.0)]
