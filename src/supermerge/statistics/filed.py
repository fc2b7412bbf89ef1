"""From the names of a model's parameters to those of the file tensors that they are made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from supermerge.checkpoint import TensorSource
from supermerge.tasks.binding import Binding, Route


def elementwise_by_file(binding: Binding, values: Mapping[str, Tensor], source: TensorSource) -> dict[str, Tensor]:
    """Values of the elements of model parameters as values of the elements of the file tensors.

    Where transformers fuses or splits tensors as it loads them, the numbers of the elements are sent through the same
    conversion. A parameter may be named by any of its aliases.
    """
    by_origin = {binding.made[name].origin: value for name, value in values.items() if name in binding.made}
    found: dict[str, Tensor] = {}
    for route in dict.fromkeys(how.route for how in binding.made.values()):
        known = [by_origin.get((route.sources, index)) for index in range(len(route.targets))]
        parts = [value for value in known if value is not None]
        if len(parts) < len(known):
            continue
        if route.converter is None:
            found[route.sources[0]] = parts[0]
        else:
            found.update(_unconverted(binding, route, parts, source))
    return {**found, **{double: found[original] for double, original in binding.doubles if original in found}}


def _unconverted(binding: Binding, route: Route, parts: list[Tensor], source: TensorSource) -> dict[str, Tensor]:
    shapes = [source.tensors[name].shape for name in route.sources]
    sizes = [source.tensors[name].numel for name in route.sources]
    numbers = torch.arange(sum(sizes)).split(sizes)
    made = route.convert(binding.model, [part.view(shape) for part, shape in zip(numbers, shapes, strict=True)])
    flat = torch.zeros(sum(sizes), dtype=parts[0].dtype)
    for name, part in zip(route.targets, parts, strict=True):
        flat[made[name].reshape(-1)] = part.reshape(-1).cpu()
    pieces = zip(route.sources, flat.split(sizes), shapes, strict=True)
    return {name: piece.view(shape) for name, piece, shape in pieces}


def layerwise_by_file(binding: Binding, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices that belong to whole weights of linear layers, for the weights that are stored as they are loaded."""
    by_origin = {binding.made[name].origin: value for name, value in values.items() if name in binding.made}
    found = {
        how.route.sources[0]: by_origin[how.origin]
        for how in binding.made.values()
        if how.route.converter is None and how.origin in by_origin
    }
    return {**found, **{double: found[original] for double, original in binding.doubles if original in found}}
