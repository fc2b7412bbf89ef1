"""Where every tensor of the output comes from, for models as wholes and for slices of layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from supermerge.errors import CheckpointError, RecipeError
from supermerge.mergekit.document import MergeDocument, Slice, Source, SourceLayers
from supermerge.methods.layers import layer_number, place_in, places, stacks

# What a model does before its first layer; all else outside the layers comes after the last.
_BEFORE = re.compile(r"(^|[._])(embed\w*|embd|wte|wpe|\w+_embeddings?|\w+_embeddings_layernorm)([._]|$)")
_AFTER = re.compile(r"(^|[._])(embed_out|lm_head)([._]|$)")


@dataclass(frozen=True, slots=True)
class Origin:
    """One tensor of the output: per model, the base first, what the recipe says of it and the tensor's stored name.

    `place` is how far through the layers of its slice it is.
    """

    part: Slice | None
    models: tuple[str, ...]
    sources: tuple[Source | None, ...]
    stored: tuple[str, ...]
    place: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of the output, and for slices how many layers it has and which of the first model's they are."""

    origins: Mapping[str, Origin]
    layers: tuple[int, ...] | None = None


def base_of(merge: MergeDocument) -> str:
    """The model whose config, tokenizer and names the output takes."""
    return merge.base_model or merge.references[0]


def layout(merge: MergeDocument, names: Mapping[str, Iterable[str]]) -> Layout:
    """The layout of `merge`, from the names of every model's tensors. Raises RecipeError, CheckpointError."""
    if merge.slices:
        return _of_slices(merge, {model: list(found) for model, found in names.items()})
    base = base_of(merge)
    said = {source.model: source for source in merge.models}
    models = (base, *(source.model for source in merge.models if source.model != base))
    sources = tuple(said.get(model) for model in models)
    _check_number(merge, models, said.get(base) is not None)
    here = list(names[base])
    where = places(here)
    return Layout({name: Origin(None, models, sources, (name,) * len(models), where[name]) for name in here})


def _check_number(merge: MergeDocument, models: Sequence[str], base_listed: bool) -> None:
    """Limits that mergekit's methods have besides those of ours."""
    method, others = merge.merge_method, len(models) - 1
    if method == "passthrough" and others:
        raise RecipeError(f"passthrough: {others + 1} models given for one tensor, expected 1")
    if method == "nuslerp" and merge.base_model is None and others != 1:
        raise RecipeError(f"nuslerp: {others + 1} models given, expected 2, or a base_model and 2 others")
    if method == "linear" and not base_listed:
        raise RecipeError(
            f"linear: base_model {models[0]!r} is not among the models, so it has no weight",
            hint="List it under models with a weight, or remove base_model.",
        )


def _of_slices(merge: MergeDocument, names: Mapping[str, Sequence[str]]) -> Layout:
    prefixes = {model: _only_stack(model, found) for model, found in names.items()}
    columns = [_columns(merge, part) for part in merge.slices]
    widths = {len(column) for column in columns}
    if len(widths) > 1:
        raise RecipeError(
            f"slices: they have {', '.join(str(len(column)) for column in columns)} sources",
            hint="Give every slice the same number of sources: that is all this version does.",
        )
    _check_number(merge, [source.model for source in columns[0]], True)
    base = columns[0][0].model
    prefix = prefixes[base][0]
    origins: dict[str, Origin] = {}
    layers: list[int] = []
    for part, column in zip(merge.slices, columns, strict=True):
        for source in column:
            count = prefixes[source.model][1]
            if source.layer_range[1] > count:
                raise RecipeError(f"slices: {source.model} has {count} layers, and layer_range is {source.layer_range}")
        for i in range(column[0].count):
            origins |= _layer(part, column, i, f"{prefix}{len(layers)}.", prefixes, names)
            layers.append(column[0].layer_range[0] + i)
    for name in names[base]:
        if layer_number(name) is None:
            at = 0 if _is_before(name) else -1
            column = columns[at]
            origins[name] = _origin(merge.slices[at], column, (name,) * len(column), 0.0)
    return Layout(origins, tuple(layers))


def _layer(
    part: Slice,
    column: Sequence[SourceLayers],
    i: int,
    prefix: str,
    prefixes: Mapping[str, tuple[str, int]],
    names: Mapping[str, Sequence[str]],
) -> dict[str, Origin]:
    """Layer `i` of a slice: the tensors that the layer of the first model has, under their new names."""
    starts = [f"{prefixes[source.model][0]}{source.layer_range[0] + i}." for source in column]
    rests = [name.removeprefix(starts[0]) for name in names[column[0].model] if name.startswith(starts[0])]
    place = place_in(i, column[0].count)
    return {prefix + rest: _origin(part, column, tuple(start + rest for start in starts), place) for rest in rests}


def _origin(part: Slice, column: Sequence[SourceLayers], stored: tuple[str, ...], place: float) -> Origin:
    return Origin(part, tuple(source.model for source in column), tuple(column), stored, place)


def _columns(merge: MergeDocument, part: Slice) -> list[SourceLayers]:
    """The sources of a slice, the base first."""
    base = part.base_model or merge.base_model
    first = next((source for source in part.sources if source.model == base), None)
    if base is not None and first is None and merge.merge_method != "passthrough":
        raise RecipeError(
            f"slices: the base_model {base!r} is not among the sources of a slice",
            hint="List it as a source, with the layers that the others were trained from.",
        )
    first = first or part.sources[0]
    return [first, *(source for source in part.sources if source is not first)]


def _only_stack(model: str, names: Iterable[str]) -> tuple[str, int]:
    found = stacks(names)
    if len(found) != 1:
        listed = ", ".join(f"{prefix}0 to {prefix}{count - 1}" for prefix, count in found.items()) or "none"
        raise CheckpointError(
            f"{model}: slices need a model with one stack of layers, found: {listed}",
            hint="Merge this model with 'models' in place of 'slices'.",
        )
    return next(iter(found.items()))


def _is_before(name: str) -> bool:
    return _BEFORE.search(name) is not None and _AFTER.search(name) is None
