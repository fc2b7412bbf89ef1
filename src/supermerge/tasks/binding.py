"""Which tensors of a file make which tensors of a transformers model, resolved exactly as `from_pretrained` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from supermerge.checkpoint import TensorSource
from supermerge.errors import CheckpointError

Origin = tuple[tuple[str, ...], int]
"""What a model tensor is made of: the file tensors, and which of the results it is where they are split."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Some file tensors, and the model tensors they become.

    `patterns[i]` is the converter's pattern that file tensor `sources[i]` matched. Without a converter there is one
    source and one target, and the tensor is taken as it is.
    """

    sources: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    converter: WeightConverter | None = None
    first: str = ""
    targets: tuple[str, ...] = ()

    def convert(self, model: PreTrainedModel, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
        """Model tensors by name, from the file tensors in the order of `sources`, by transformers' own operations."""
        if self.converter is None:
            return dict(zip((self.first,), tensors, strict=True))
        # transformers declares futures here, and takes tensors as well (it saves models this way).
        converter: Any = deepcopy(self.converter)
        for source, pattern, tensor in zip(self.sources, self.patterns, tensors, strict=True):
            converter.add_tensor(self.first, source, pattern, tensor)
        made = converter.convert(self.first, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


@dataclass(frozen=True, slots=True)
class Made:
    """A model tensor as the `index`-th result of a route."""

    route: Route
    index: int

    @property
    def origin(self) -> Origin:
        """The same for two models' tensors exactly if they are made of the same file tensors in the same way."""
        return self.route.sources, self.index

    @property
    def name(self) -> str:
        """The name of the tensor that the route makes; a tied alias has another one."""
        return self.route.targets[self.index]


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """How the tensors of `model` are made from the tensors of a checkpoint.

    `made` has every name of `model.state_dict()` that the checkpoint provides, tied aliases included (they share one
    `Made`); `missing` the others. `unexpected` are file tensors that the model has no place for. `doubles` are file
    tensors that repeat a tied tensor under a second name: (double, original).
    """

    model: PreTrainedModel
    made: dict[str, Made]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    doubles: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, model: PreTrainedModel, source: TensorSource) -> Self:
        """Bind `model` (on any device, `meta` included) to the names and shapes in `source`.

        Tied tensors that the file stores twice are compared: equal ones are tied, others stay apart, as in
        `from_pretrained`. Raises CheckpointError where transformers' conversion does not fit the file.
        """
        state = model.state_dict(keep_vars=True)
        routes, unexpected = _routes(model, source, state)
        made = {name: Made(route, index) for route in routes for index, name in enumerate(route.targets)}
        made = {name: how for name, how in made.items() if name in state}
        doubles = _tie(state, made, source)
        missing = tuple(name for name in state if name not in made)
        ordered = {name: made[name] for name in state if name in made}
        return cls(model, ordered, missing, tuple(unexpected), doubles)

    def files(self, name: str) -> tuple[str, ...]:
        """The file tensors that model tensor `name` is made of."""
        return self.made[name].route.sources

    @property
    def file_names(self) -> tuple[str, ...]:
        """Every file tensor that the model uses, doubles included, each once."""
        used = [source for how in self.made.values() for source in how.route.sources]
        return tuple(dict.fromkeys(used + [double for double, _ in self.doubles]))

    def only(self, names: Iterable[str]) -> Self:
        """The same for some of the model's tensors: `missing` and `made` have no others."""
        wanted = set(names)
        made = {name: how for name, how in self.made.items() if name in wanted}
        return replace(self, made=made, missing=tuple(name for name in self.missing if name in wanted))

    def require(self, names: Iterable[str], label: str) -> None:
        """Raise CheckpointError naming every one of `names` that the file lacks: nothing is ever initialised."""
        lacking = [name for name in names if name not in self.made]
        if lacking:
            shown = ", ".join(lacking[:10]) + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
            raise CheckpointError(
                f"{label} lacks {len(lacking)} tensor(s) of {type(self.model).__name__}: {shown}.",
                hint="Nothing is initialised silently: give a checkpoint that has them.",
            )

    def file_coefficients(self, w: Mapping[str, Tensor], source: TensorSource) -> dict[str, Tensor]:
        """Coefficients per file tensor, from coefficients per model tensor.

        `w[name]` is [k] or [k, rows of the model tensor]; the result is [k] or [k, rows of the file tensor].
        A tied tensor's name may be any of its aliases. Raises CheckpointError where one row of a file tensor would
        need two coefficients.
        """
        by_origin = {self.made[name].origin: value for name, value in w.items()}
        result: dict[str, Tensor] = {}
        for route in dict.fromkeys(how.route for how in self.made.values()):
            values = [by_origin.get((route.sources, index)) for index in range(len(route.targets))]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                continue
            if len(known) == 1 and (route.converter is None or known[0].dim() == 1):
                result.update(dict.fromkeys(route.sources, known[0]))
            else:
                result.update(self._row_coefficients(route, known, source))
        result.update({double: result[original] for double, original in self.doubles if original in result})
        return result

    def _row_coefficients(self, route: Route, values: list[Tensor], source: TensorSource) -> dict[str, Tensor]:
        """Send row numbers through the conversion, and see where each row of the file tensors ends up."""
        shapes = [source.tensors[name].shape for name in route.sources]
        starts = [sum(shape[0] for shape in shapes[:i]) for i in range(len(shapes) + 1)]
        rows = [
            torch.arange(start, start + shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
            for start, shape in zip(starts, shapes, strict=False)
        ]
        made = route.convert(self.model, rows)
        column_of_row = torch.full((starts[-1],), -1)
        columns: list[Tensor] = []
        for target, value in zip(route.targets, values, strict=True):
            ids = made[target]
            first = sum(column.shape[1] for column in columns)
            columns.append(value if value.dim() == 2 else value[:, None])
            column = torch.arange(first, first + columns[-1].shape[1])
            column = column.reshape(-1, *[1] * (ids.dim() - 1)).expand(ids.shape)
            fresh = column_of_row[ids] < 0
            column_of_row[ids[fresh]] = column[fresh]
            if not torch.equal(column_of_row[ids], column):
                raise CheckpointError(
                    f"One row of {route.sources[0]} would need several coefficients: transformers makes "
                    f"{', '.join(route.targets)} of it.",
                    hint="Use granularity tensor, module, layer or model.",
                )
        everything = torch.cat(columns, dim=1)
        per_row = everything[:, column_of_row]
        return {name: per_row[:, starts[i] : starts[i + 1]] for i, name in enumerate(route.sources)}


def _routes(model: PreTrainedModel, source: TensorSource, state: Mapping[str, Any]) -> tuple[list[Route], list[str]]:
    """The routes of `convert_and_load_state_dict_in_model`, and the file names that lead nowhere."""
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    prefix = model.base_model_prefix
    meta = dict(state)
    collected: dict[str, list[tuple[str, str | None]]] = {}
    unexpected: list[str] = []
    for name in sorted(source.tensors, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, meta)
        if target not in meta and name in meta:
            target, pattern = rename_source_key(name, [], [], base_model_prefix=prefix, meta_state_dict=meta)
        if target in meta:
            collected.setdefault(target, []).append((name, pattern))
        else:
            unexpected.append(name)
    routes: list[Route] = []
    for target, found in collected.items():
        first_name, first_pattern = found[0]
        if first_pattern is None:
            # A second file tensor for the same place is dropped, as from_pretrained does.
            unexpected += [name for name, _ in found[1:]]
            routes.append(Route((first_name,), first=target, targets=(target,)))
            continue
        route = Route(
            tuple(name for name, _ in found),
            tuple(pattern or first_pattern for _, pattern in found),
            by_pattern[first_pattern],
            target,
        )
        routes.append(_with_targets(route, model, source))
    return routes, unexpected


def _with_targets(route: Route, model: PreTrainedModel, source: TensorSource) -> Route:
    """Run the conversion on empty tensors, to learn which model tensors come out of it."""
    infos = [source.tensors[name] for name in route.sources]
    try:
        made = route.convert(model, [torch.empty(info.shape, dtype=info.dtype, device="meta") for info in infos])
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(
            f"{source.label}: transformers cannot make {route.first} from {', '.join(route.sources[:4])}"
            f"{' …' if len(route.sources) > 4 else ''}: {error}.",
            hint="The checkpoint does not fit its config, or some of these tensors are missing from it.",
        ) from error
    return Route(route.sources, route.patterns, route.converter, route.first, tuple(made))


def _tie(state: Mapping[str, Tensor], made: dict[str, Made], source: TensorSource) -> tuple[tuple[str, str], ...]:
    """Give every alias of a tied tensor the route of the one that the file has; returns the doubles."""
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    doubles: list[tuple[str, str]] = []
    for names in groups.values():
        present = [name for name in names if name in made]
        if not present or len(names) == 1:
            continue
        kept = made[present[0]]
        for name in names:
            how = made.get(name)
            if how is None:
                made[name] = kept
            elif how is not kept and len(how.route.sources) == len(kept.route.sources) == 1:
                double, original = how.route.sources[0], kept.route.sources[0]
                if torch.equal(source.read(original), source.read(double)):
                    made[name] = kept
                    doubles.append((double, original))
    return tuple(doubles)
