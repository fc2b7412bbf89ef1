"""How much memory a task's activations take, found by running its model without weights, on the meta device.

Tensors there have shapes and no values, so any size of model is measured in a fraction of a second. Saved for the
backward pass is what autograd packs; alive at once is what Python sees. Models whose forward pass looks at values (a
mixture of experts that counts its tokens) cannot run like this: their activations stay unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from supermerge.errors import SupermergeError
from supermerge.plan.rehearsal import Watch
from supermerge.recipe import Recipe
from supermerge.resolve import Opened
from supermerge.tasks.spec import TaskSpec

# What a model's own code raises where it needs values that a meta tensor does not have.
_NEEDS_VALUES = (
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    SupermergeError,
)
_BLANK = (640, 480)


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes on top of model and gradients, for full batches of the greatest length: while learning, while scoring."""

    learning: int
    scoring: int


def activations(recipe: Recipe, sources: Opened) -> Activations | None:
    """The largest of all tasks; None where a task's model cannot run without values."""
    found: list[Activations] = []
    for name, spec in recipe.tasks.items():
        try:
            found.append(_of_task(name, spec, sources))
        except _NEEDS_VALUES:
            return None
    return Activations(max(one.learning for one in found), max(one.scoring for one in found)) if found else None


def _of_task(name: str, spec: TaskSpec, sources: Opened) -> Activations:
    from supermerge.tasks.evaluate import scoring_batch

    run, parameters = _forward(name, spec, sources)
    with torch.no_grad():
        scoring, one = (_alive(lambda size=size: run(size)) for size in (scoring_batch(spec), spec.batch_size))
    # A backward pass holds gradients of about what a forward pass holds at once, beside all that was saved.
    return Activations(_saved(lambda: run(spec.batch_size), parameters) + one, scoring)


def _forward(name: str, spec: TaskSpec, sources: Opened) -> tuple[Callable[[int], Tensor], list[Tensor]]:
    """Runs the task's model and loss on a batch of a given size; and the tensors that are no activations."""
    from supermerge.tasks.losses import aligned
    from supermerge.tasks.models import build, read_config
    from supermerge.tasks.pooled import backbone_of
    from supermerge.tasks.task_models import host_class
    from supermerge.tasks.workbench import head_source
    from supermerge.tasks.zero_shot import image_embeddings

    base = sources.base
    with ExitStack() as files:
        head = head_source(name, spec, sources.experts, files)
    config = head.config if head.of_class else base.config
    kind = head.auto_class if head.of_class else host_class(base, {name: head})
    model: Any = build(kind, read_config(config, head.label), head.label, torch.float32)
    shape = _shape(spec, sources, model)
    body = model if head.of_class or head.zero_shot else backbone_of(model)

    def run(size: int) -> Tensor:
        inputs = _inputs(spec, size, shape)
        if head.zero_shot:
            return image_embeddings(model, inputs["pixel_values"]).square().mean()
        output = body(**inputs)
        if not head.of_class:
            return output.last_hidden_state.square().mean()
        logits = output.logits
        if not spec.is_generation:
            return logits.square().mean()
        # The places that count are copied out before the loss, all of them at most.
        rows, _ = aligned(spec.type, logits, torch.empty(logits.shape[:2], device="meta"))
        rows = rows.clone().flatten(0, 1)
        return torch.nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long, device="meta"))

    return run, [*model.parameters(), *model.buffers()]


def _shape(spec: TaskSpec, sources: Opened, model: Any) -> tuple[int, ...]:
    """What one example is: `[tokens]`, or an image's `[channels, height, width]` as the model's processor makes it."""
    if spec.image is None:
        from supermerge.tasks.capacity import within

        return (within(model, spec.max_length),)
    from PIL import Image

    from supermerge.tasks.processors import image_processor_of

    processor = image_processor_of([sources.base.directory, sources.experts[spec.expert].directory], "the plan")
    return tuple(processor(Image.new("RGB", _BLANK), return_tensors="pt")["pixel_values"][0].shape)


def _inputs(spec: TaskSpec, size: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
    if spec.image is not None:
        return {"pixel_values": torch.empty(size, *shape, device="meta")}
    # Without an attention mask: rows of the greatest length have no padding, and models look at a mask's values.
    names = ("input_ids", "decoder_input_ids") if spec.type == "seq2seq" else ("input_ids",)
    return {name: torch.ones(size, *shape, dtype=torch.long, device="meta") for name in names}


def _alive(run: Callable[[], Tensor]) -> int:
    """The most bytes that are alive at once."""
    with Watch() as watch, _FusedAttention():
        run()
    return watch.peak


def _saved(run: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes kept for the backward pass, each storage once, parameters left out."""
    # A storage is one Python object for as long as that is held.
    ours = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in parameters)}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in ours:
            saved[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _FusedAttention():
        run()
    return sum(storage.nbytes() for storage in saved.values())


class _FusedAttention(TorchFunctionMode):
    """Attention as processors run it: fused, so that no score is kept. The meta device would choose the plain one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _Fused.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Fused(torch.autograd.Function):
    """Shapes of fused attention: it keeps queries, keys, values, the result, and one number per query."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[…, queries, width]."""
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1]))
        return result
