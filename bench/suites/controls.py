"""What the same labels do without merging: a linear probe on the base, and few-shot fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supermerge.checkpoint import TensorSource
from supermerge.demo.train import fit_probe
from supermerge.run.prepared import Prepared
from supermerge.tasks.workbench import Workbench

_EPOCHS = 5
_BATCH = 8


def probe(ready: Prepared) -> None:
    """Put the base and, for every task, the logistic regression of the labelled examples on the workbench."""
    bench = ready.require_bench("a probe")
    bench.load(ready.opened.base)
    for task, rows in ready.rows.items():
        head = bench.heads[task].module.classifier
        batch = bench.collate(task, rows.labelled)
        fresh = nn.Linear(head.in_features, head.out_features)
        fit_probe(fresh, _features(bench, task, batch), batch["labels"])
        head.weight.data.copy_(fresh.weight.data)
        head.bias.data.copy_(fresh.bias.data)


def _features(bench: Workbench, task: str, batch: dict[str, Tensor]) -> Tensor:
    """What the head of a task takes of a batch, [batch, width]."""
    seen: list[Tensor] = []
    hook = bench.heads[task].module.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        bench.logits(task, {name: value for name, value in batch.items() if name != "labels"})
    hook.remove()
    return seen[0]


def fine_tune(ready: Prepared, start: TensorSource | None, lr: float) -> None:
    """Train the weights on the workbench, heads included, on all labelled examples: five epochs, tasks in turns.

    `start` are the weights to begin with, under the experts' heads; None begins with the probe on the base.
    """
    bench = ready.require_bench("fine-tuning")
    if start is None:
        probe(ready)
    else:
        bench.load(start)
    model: Any = bench.model
    heads = [parameter for task in ready.rows for parameter in bench.heads[task].module.classifier.parameters()]
    trained = [*model.parameters(), *heads]
    for parameter in trained:
        parameter.requires_grad_(parameter.is_floating_point())
    optimiser = torch.optim.AdamW(
        [{"params": list(model.parameters()), "lr": lr}, {"params": heads, "lr": 10 * lr}], weight_decay=0.01
    )
    order = torch.Generator().manual_seed(ready.recipe.seed)
    batches = _batches(ready, order)
    for done, (task, rows) in enumerate(batches):
        for group, rate in zip(optimiser.param_groups, (lr, 10 * lr), strict=True):
            group["lr"] = rate * min((done + 1) / (0.1 * len(batches)), (len(batches) - done) / len(batches))
        optimiser.zero_grad()
        bench.supervised_loss(task, bench.collate(task, rows)).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
    for parameter in trained:
        parameter.requires_grad_(False)
        parameter.grad = None


def _batches(ready: Prepared, order: torch.Generator) -> list[tuple[str, Sequence[Any]]]:
    """(task, rows) of every step: shuffled epochs."""
    found = []
    for _ in range(_EPOCHS):
        epoch = []
        for task, rows in ready.rows.items():
            shuffled = torch.randperm(len(rows.labelled), generator=order).tolist()
            epoch += [
                (task, [rows.labelled[one] for one in shuffled[start : start + _BATCH]])
                for start in range(0, len(shuffled), _BATCH)
            ]
        found += [epoch[one] for one in torch.randperm(len(epoch), generator=order).tolist()]
    return found
