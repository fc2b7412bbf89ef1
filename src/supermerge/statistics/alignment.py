"""How far experts' answers are from each other's: logits of every expert on the examples of all tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supermerge.checkpoint import TensorSource
from supermerge.errors import DataError
from supermerge.statistics.stored import read_finite

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

_MOST = 1 << 28


def logits(bench: Workbench, examples: Mapping[str, Sequence[Example]]) -> dict[str, Tensor]:
    """[places, classes] by `["expert", "task"]`, the expert being the task's own; a generated token is a place.

    Raises DataError where that is more than 2²⁸ numbers of one task.
    """
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for task, part in examples.items():
            spec, rows, count = bench.specs[task], [], 0
            for start in range(0, len(part), spec.batch_size):
                batch = bench.batch(task, part[start : start + spec.batch_size])
                rows.append(bench.logits(task, batch).float().cpu())
                count += rows[-1].numel()
                if count > _MOST:
                    raise DataError(
                        f"tasks.{task}: the logits of {len(part)} examples are more than {_MOST:,} numbers, which "
                        "alignment would keep.",
                        hint="Give the task fewer or shorter examples.",
                    )
            found[json.dumps([spec.expert, task])] = torch.cat(rows)
    return found


def distances(experts: Mapping[str, TensorSource]) -> dict[str, float]:
    """Per expert i, Σ_{j≠i} gᵢⱼ: gᵢⱼ is the mean over the places of j's tasks of the distance of i's logits from j's.

    All must have been shown the same examples. Raises DataError for tasks of an expert that is not among them.
    """
    found = dict.fromkeys(experts, 0.0)
    for key in sorted(next(iter(experts.values())).tensors):
        owner, task = _owner_and_task(key)
        if owner not in experts:
            raise DataError(
                f"alignment: task {task!r} is of expert {owner!r}, which is not one of {', '.join(experts)}.",
                hint="Name the experts as they were named when their alignment was measured, or measure it again.",
            )
        shapes = {name: source.tensors[key].shape for name, source in experts.items() if key in source.tensors}
        if len(shapes) < len(experts) or len(set(shapes.values())) > 1:
            raise DataError(
                f"alignment: the logits of task {task!r} differ in number, or are missing: {shapes}.",
                hint="Delete these files, and measure again on the same tasks.",
            )
        own = read_finite(experts[owner], key).double()
        for name, source in experts.items():
            found[name] += float((source.read(key).double() - own).norm(dim=1).mean())
    return found


def _owner_and_task(key: str) -> tuple[str, str]:
    try:
        owner, task = json.loads(key)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"alignment: tensor {key!r} is not named after an expert and a task.",
            hint="The file is damaged: delete it, and it is measured again.",
        ) from error
    return owner, task
