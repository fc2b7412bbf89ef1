"""Load a merged model back, with the head of one of its tasks."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import torch
import transformers
from torch import nn

from supermerge.checkpoint import Checkpoint, open_expert
from supermerge.checkpoint.adapters import is_adapter, read_settings
from supermerge.checkpoint.locate import read_json
from supermerge.errors import CheckpointError, UsageError
from supermerge.tasks.save import HEADS
from supermerge.tasks.task_models import HeadSource, build_task_models


def load(directory: str | os.PathLike[str], task: str | None = None) -> nn.Module:
    """The merged model in `directory`, in eval mode; with `task`, a model that has that task's head.

    `model(**inputs).logits` are the task's logits. Without `task` it is the backbone (or the generative model).
    It has the dtype that it is stored in, and lies on the CPU. Raises CheckpointError where a file is missing or
    corrupt, and UsageError where there is no such task.
    """
    root = Path(directory)
    with ExitStack() as files:
        merged, kind_name = _opened(root, files)
        names = [kind_name] if kind_name else merged.architectures or [None]
        kind = getattr(transformers, str(names[0]), None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise CheckpointError(
                f"{root}: config.json names the architecture {names[0]!r}, which transformers does not have.",
                hint="Give the output directory of `supermerge run`.",
            )
        stored = next((info.dtype for info in merged.tensors.values() if info.is_floating), torch.float32)
        wanted = {} if task is None else {task: _saved_head(root, task, files)}
        host, heads = build_task_models(merged, wanted, kind=kind, dtype=stored)
    return host.model if task is None else heads[task].module


def _opened(root: Path, files: ExitStack) -> tuple[Checkpoint, str | None]:
    """The merged model, and the class that an adapter was made for: an adapter is seen on the base that it names."""
    if not is_adapter(root):
        return files.enter_context(Checkpoint.open(root)), None
    settings = read_settings(root)
    if settings.trained_on is None:
        raise CheckpointError(
            f"{settings.path}: does not say which model it is an adapter on.",
            hint="Set its base_model_name_or_path to that model's directory or hub id.",
        )
    place = f"{settings.trained_on}@{settings.revision}" if settings.revision else settings.trained_on
    base = files.enter_context(Checkpoint.open(place))
    return open_expert(root, base, files), settings.model_class


def _saved_head(root: Path, task: str, files: ExitStack) -> HeadSource:
    place = root / HEADS / task
    known = sorted(path.parent.name for path in root.glob(f"{HEADS}/*/config.json"))
    if task not in known:
        raise UsageError(
            f"{root} has no head for task {task!r}.",
            hint=f"It has: {', '.join(known)}." if known else "It has no heads at all.",
        )
    tensors = place / "model.safetensors"
    if tensors.is_file():
        head = files.enter_context(Checkpoint.open(place))
        return HeadSource.from_saved(str(place), head.config, (head,))
    return HeadSource.from_saved(str(place), read_json(place / "config.json"), ())
