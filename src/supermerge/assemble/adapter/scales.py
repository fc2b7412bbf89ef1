"""The scales of IA3, merged as the parameters that they are: a base of ones, and the vectors of every expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from supermerge.assemble.adapter.layout import AdapterLayout
from supermerge.assemble.choice import Choice
from supermerge.assemble.geometry import Geometry
from supermerge.assemble.stream import Sink, merge_into
from supermerge.checkpoint import Checkpoint, Composed, Match, TensorSource
from supermerge.checkpoint.adapters import Rescaled, adapter_of


@dataclass(frozen=True, slots=True)
class _Under:
    """A sink under other names."""

    sink: Sink
    names: Mapping[str, str]

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Elements from `start` on of the flattened tensor."""
        self.sink.write_flat(self.names[name], start, tensor)


def merge_scales(
    sink: Sink,
    layout: AdapterLayout,
    choice: Choice,
    match: Match,
    *,
    seed: int,
    threads: int | None,
    dtype: torch.dtype,
) -> Geometry | None:
    """Merge ℓ₁ … ℓ_k with 1 for the base; gives the geometry of ones and ℓᵢ − 1, by the names of the base.

    Every vector goes by the name of the weight that it scales, and by its coefficients. For a sum,
    1 + Σ cᵢ (ℓᵢ − 1) scales the weight to W + Σ cᵢ (ℓᵢ − 1) ⊙ W: the merge of the weights.
    """
    shapes = {name: layout.saved.scales[module].shape for name, module in layout.scales.items()}
    ones = Checkpoint.open({name: torch.ones(shape) for name, shape in shapes.items()}, label="ones")
    vectors = Match(
        base=ones,
        experts={name: _vectors(match, source, ones) for name, source in match.experts.items()},
        merged=list(shapes),
        copied=[],
        heads={},
        prefixes={},
        tied={},
        notes=[],
    )
    stored = {name: layout.saved.vector(module) for name, module in layout.scales.items()}
    seen = merge_into(_Under(sink, stored), choice, vectors, seed=seed, threads=threads, dtype=dtype, geometry=True)
    return seen.geometry


def _vectors(match: Match, expert: TensorSource, ones: Checkpoint) -> TensorSource:
    view = adapter_of(match.base, expert)
    assert view is not None
    parts: dict[str, tuple[TensorSource, str]] = {}
    for name in ones.tensors:
        change = view.changed[name].change if name in view.changed else None
        parts[name] = change.scales if isinstance(change, Rescaled) else (ones, name)
    return Composed(expert.label, parts)
