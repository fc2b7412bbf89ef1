"""The forms in which experts come: whole models, and LoRA adapters on the base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from supermerge.checkpoint import Checkpoint
from supermerge.checkpoint.adapters import Changed, LowRank
from supermerge.checkpoint.adapters.adapted import Adapted
from supermerge.checkpoint.adapters.changes import Fitted
from supermerge.checkpoint.adapters.settings import AdapterSettings
from supermerge.checkpoint.memory import MemoryStore

FORMS = ("dense", "lora")
RANK = 2
SETTINGS = AdapterSettings(
    Path("adapter_config.json"), "LORA", None, RANK, RANK, {}, {}, False, False, False, False, (), (), None, None, None
)


class Lora(dict[str, Tensor]):
    """The tensors of a model that an adapter makes, with the factors that make them: name → (B, A)."""

    def __init__(self, tensors: dict[str, Tensor], factors: dict[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__(tensors)
        self.factors = factors

    @classmethod
    def on(cls, base: dict[str, Tensor], draw: Callable[[tuple[int, ...]], Tensor]) -> Lora:
        """An adapter on every matrix of `base`; `draw(shape)` gives its numbers."""
        factors = {
            name: (draw((len(tensor), RANK)), draw((RANK, tensor[0].numel())))
            for name, tensor in base.items()
            if tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel()
        }
        made = dict(base)
        for name, (b, a) in factors.items():
            exact = base[name].double() + (b.double() @ a.double()).view(base[name].shape)
            made[name] = exact.to(torch.promote_types(base[name].dtype, torch.float32))
        return cls(made, factors)


def opened(base: Checkpoint, tensors: dict[str, Tensor]) -> Checkpoint:
    """An expert in the form that it has."""
    if not isinstance(tensors, Lora):
        return Checkpoint.open(tensors)
    parts = {
        f"{name}.{part}": value
        for name, pair in tensors.factors.items()
        for part, value in zip("BA", pair, strict=True)
    }
    store = MemoryStore("lora", parts)
    changed = {
        name: Changed((base, name), LowRank((store, f"{name}.B"), (store, f"{name}.A"), 1.0, False))
        for name in tensors.factors
    }
    fitted = Fitted(changed, {name: name for name in changed})
    return Checkpoint(Adapted("lora", base, store, SETTINGS, fitted), identity=id(tensors), borrowed=True)
