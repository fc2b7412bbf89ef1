"""What the scales of normalisations multiply: its second moments, on the model of a workbench."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermerge.statistics.forward import watch

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


def norm_moments(bench: Workbench, examples: Mapping[str, Sequence[Example]]) -> dict[str, Tensor]:
    """E x̂² [d] by scale of `bench.model`, x̂ the normalised input at every token (patch, place) of all examples.

    Normalisations over the last dimension with a scale for each of its elements: LayerNorm, and those whose class is
    called …RMSNorm or T5LayerNorm.
    """
    totals: dict[str, Tensor] = {}
    tokens: Counter[str] = Counter()

    def see(name: str, module: nn.Module, rows: Tensor) -> None:
        seen = normalised(module, rows).square().sum(0)
        totals[name] = totals[name] + seen if name in totals else seen
        tokens[name] += len(rows)

    watch(bench, examples, shared_norms, see)
    return {name: total / tokens[name] for name, total in totals.items()}


def shared_norms(bench: Workbench, task: str) -> Iterator[tuple[str, nn.Module]]:
    """(name of the scale in `bench.model`, module in the task's model)."""
    names = {id(parameter): name for name, parameter in bench.model.named_parameters()}
    for module in bench.heads[task].module.modules():
        scale = getattr(module, "weight", None)
        if _is_norm(module) and isinstance(scale, Tensor) and scale.dim() == 1 and id(scale) in names:
            yield names[id(scale)], module


def normalised(module: nn.Module, rows: Tensor) -> Tensor:
    """`rows [tokens, d]` as the module's scale sees them."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(rows, rows.shape[-1:], eps=module.eps)
    return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + torch.finfo(rows.dtype).tiny)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith(("RMSNorm", "T5LayerNorm"))
