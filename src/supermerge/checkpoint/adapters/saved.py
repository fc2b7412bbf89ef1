"""An adapter that is written: its tensors, what they are called, and its config, as PEFT reads them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from supermerge.checkpoint.source import TensorInfo

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Product:
    """LoRA on a weight of shape `shape`: B · A of `rank`; `transposed` where the weight is stored [in, out]."""

    shape: tuple[int, ...]
    rank: int
    transposed: bool = False
    embedding: bool = False

    @property
    def a_shape(self) -> tuple[int, ...]:
        """[r, in], with a convolution's kernel behind."""
        return (self.rank, self.shape[0]) if self.transposed else (self.rank, *self.shape[1:])

    @property
    def b_shape(self) -> tuple[int, ...]:
        """[out, r], with a kernel of ones behind for a convolution."""
        outputs = self.shape[1] if self.transposed else self.shape[0]
        return (outputs, self.rank, *(1 for _ in self.shape[2:]))


@dataclass(frozen=True, slots=True)
class Scales:
    """IA3 on a weight: one scale per output, [n, 1], or per input of a feed-forward layer, [1, n]."""

    shape: tuple[int, ...]
    feedforward: bool
    transposed: bool


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """What an adapter changes, by the names of the model that it is loaded on.

    `products` and `scales` are keyed by module (LoRA has the former, IA3 the latter), `whole` by tensor. `modules` are
    all modules of the model that have tensors. `base` is where PEFT finds the model, `revision` its commit on a hub.
    """

    kind: str
    modules: frozenset[str]
    products: Mapping[str, Product] = field(default_factory=dict)
    scales: Mapping[str, Scales] = field(default_factory=dict)
    whole: Mapping[str, TensorInfo] = field(default_factory=dict)
    base: str | None = None
    revision: str | None = None
    task_type: str | None = None
    model_class: str | None = None

    @property
    def described(self) -> str:
        """In a few words."""
        parts = [f"{len(self.products) + len(self.scales)} modules"]
        parts += [f"{len(self.whole)} whole tensors"] if self.whole else []
        ranks = sorted({product.rank for product in self.products.values()})
        rank = f" of rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "") if ranks else ""
        kind = self.kind.replace("LORA", "LoRA")
        return f"an adapter of PEFT: {kind}{rank} on {' and '.join(parts)}"

    def a(self, module: str) -> str:
        """The stored name of A."""
        return f"{_PREFIX}{module}.{'lora_embedding_A' if self.products[module].embedding else 'lora_A.weight'}"

    def b(self, module: str) -> str:
        """The stored name of B."""
        return f"{_PREFIX}{module}.{'lora_embedding_B' if self.products[module].embedding else 'lora_B.weight'}"

    def vector(self, module: str) -> str:
        """The stored name of the scales."""
        return f"{_PREFIX}{module}.ia3_l"

    def stored(self, tensor: str) -> str:
        """The stored name of a tensor that is there whole."""
        module, _, leaf = tensor.rpartition(".")
        return f"{_PREFIX}{module}.base_layer.{leaf}" if module in self.products else f"{_PREFIX}{tensor}"

    def infos(self, dtype: torch.dtype) -> list[TensorInfo]:
        """Every tensor of the file, floating ones in `dtype`."""
        found: list[TensorInfo] = []
        for module, product in self.products.items():
            found.append(TensorInfo(self.a(module), dtype, product.a_shape))
            found.append(TensorInfo(self.b(module), dtype, product.b_shape))
        found += [TensorInfo(self.vector(module), dtype, scales.shape) for module, scales in self.scales.items()]
        for tensor, info in self.whole.items():
            found.append(TensorInfo(self.stored(tensor), dtype if info.is_floating else info.dtype, info.shape))
        return found

    def config(self) -> str:
        """The content of adapter_config.json."""
        common: dict[str, Any] = {
            "peft_type": self.kind,
            "base_model_name_or_path": self.base,
            "revision": self.revision,
            "task_type": self.task_type,
            "inference_mode": True,
            "modules_to_save": self._saved_modules() or None,
            "target_modules": [*shortened(self._by_outputs, self.modules), *self._feedforward],
        }
        if self.model_class is not None:
            common["auto_mapping"] = {"base_model_class": self.model_class, "parent_library": "transformers"}
        own = self._ia3() if self.kind == "IA3" else self._lora()
        return json.dumps({**common, **own}, indent=2, sort_keys=True) + "\n"

    def _lora(self) -> dict[str, Any]:
        """α is the rank of every module, so that nothing is scaled: that is done in B."""
        ranks = {module: product.rank for module, product in self.products.items()}
        usual = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
        other = {module: rank for module, rank in ranks.items() if rank != usual}
        biases = [tensor.rpartition(".")[0] for tensor in self.whole if self._is_bias(tensor)]
        return {
            "r": usual,
            "lora_alpha": usual,
            "rank_pattern": other,
            "alpha_pattern": other,
            "lora_dropout": 0.0,
            "bias": "none" if not biases else "lora_only" if set(biases) <= set(self.products) else "all",
            "fan_in_fan_out": any(each.transposed and not each.embedding for each in self.products.values()),
        }

    def _ia3(self) -> dict[str, Any]:
        return {
            "feedforward_modules": self._feedforward,
            "fan_in_fan_out": any(scales.transposed for scales in self.scales.values()),
        }

    @property
    def _feedforward(self) -> list[str]:
        """In full: PEFT wants them among the targets word for word, and matches any ending."""
        return [module for module, scales in self.scales.items() if scales.feedforward]

    @property
    def _by_outputs(self) -> list[str]:
        return [*self.products, *(module for module, scales in self.scales.items() if not scales.feedforward)]

    def _is_bias(self, tensor: str) -> bool:
        """Whether a whole tensor is a bias, which LoRA saves without its module."""
        return self.kind == "LORA" and tensor.endswith(".bias")

    def _saved_modules(self) -> list[str]:
        return saved_modules(tensor for tensor in self.whole if not self._is_bias(tensor))


def saved_modules(tensors: Iterable[str]) -> list[str]:
    """The modules that tensors belong to, each once."""
    return list(dict.fromkeys(tensor.rpartition(".")[0] for tensor in tensors))


def shortened(modules: Collection[str], among: Collection[str]) -> list[str]:
    """Modules by their last component where it names no other among all, as PEFT matches ends after a dot."""
    wanted, found = set(modules), dict[str, None]()
    for module in modules:
        last = module.rpartition(".")[2]
        alike = {other for other in among if other == last or other.endswith(f".{last}")}
        found[last if alike <= wanted else module] = None
    return list(found)
