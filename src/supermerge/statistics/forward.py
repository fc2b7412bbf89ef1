"""Forward passes of examples, without padding, under the eyes of whoever wants to see what goes into a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from supermerge.events import emit
from supermerge.statistics.examples import unpadded

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

See = Callable[[str, nn.Module, Tensor], None]
"""Called with a name, the module, and its input at every token of a batch: [tokens, inputs], fp32."""


class Enough(Exception):
    """Raised by who has seen enough of a batch."""


def watch(
    bench: Workbench,
    examples: Mapping[str, Sequence[Example]],
    modules: Callable[[Workbench, str], Iterable[tuple[str, nn.Module]]],
    see: See,
) -> None:
    """Run all examples through their tasks' models, and show `see` what goes into the `modules(bench, task)`.

    Batches hold examples of one length, so that no padding is seen. `see` may raise Enough, which ends the batch.
    """

    def observer(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: see(name, module, _tokens(module, inputs[0].detach()).float())

    count, done = sum(len(part) for part in examples.values()), 0
    for task, part in examples.items():
        with ExitStack() as hooks, torch.no_grad():
            for name, module in modules(bench, task):
                hooks.callback(module.register_forward_pre_hook(observer(name)).remove)
            for batch in unpadded(part, bench.specs[task].batch_size):
                with suppress(Enough):
                    bench.places(task, bench.batch(task, batch))
                done += len(batch)
                emit("progress", phase="statistics", done=done, total=count, unit="examples")


def _tokens(module: nn.Module, inputs: Tensor) -> Tensor:
    """[tokens, inputs]; ConvNeXt's normalisations say where maps have their channels."""
    if getattr(module, "data_format", None) == "channels_first":
        inputs = inputs.movedim(1, -1)
    return inputs.flatten(0, -2)
