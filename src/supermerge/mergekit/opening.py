"""A merge of mergekit's with its checkpoints open: what is merged with what, by which method, and the files beside."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from supermerge.assemble import Choice, Merged
from supermerge.checkpoint import Checkpoint, Composed, Match, TensorSource, match
from supermerge.checkpoint.config import config_for
from supermerge.checkpoint.vocabulary import Files
from supermerge.errors import RecipeError
from supermerge.mergekit.dialect import bound
from supermerge.mergekit.document import MergeDocument
from supermerge.mergekit.layout import Layout, Origin, base_of, layout
from supermerge.mergekit.reader import Mergekit, named_models
from supermerge.mergekit.tokens import Model, Retokenized, retokenized
from supermerge.mergekit.values import values_for
from supermerge.methods import Bound, get

_ITSELF = "base"
"""What the base is called where it is one of the experts, too."""


@dataclass(frozen=True, slots=True)
class OpenedMerge:
    """A merge made ready: its models by name, the base first, and all that carries it out.

    `origins` says which tensor of which model a tensor of the output was read from: position in the match ("" for the
    base) → output name → (the model's name, "" for the base, and the stored name).
    """

    models: dict[str, Checkpoint]
    match: Match
    choice: Choice
    files: Files
    origins: Mapping[str, Mapping[str, tuple[str, str]]]
    inputs: tuple[Checkpoint, ...] = ()


def open_merges(mergekit: Mergekit, stack: ExitStack, seed: int) -> OpenedMerge:
    """Open the last merge of a file, with those that it uses as sources that are computed when read."""
    made: dict[str, OpenedMerge] = {}
    models: dict[str, Model] = {}
    for name, merge in mergekit.documents.items():
        for reference in merge.references:
            if reference not in models:
                checkpoint = stack.enter_context(Checkpoint.open(reference))
                models[reference] = Model(checkpoint, {file.name: file for file in checkpoint.side_files()})
        made[name] = opened = _opened(merge, {reference: models[reference] for reference in merge.references})
        if name:
            dtype = getattr(torch, merge.written_dtype) if merge.written_dtype else None
            merged = Merged(name, opened.match, opened.choice, dtype=dtype, seed=seed)
            base = next(iter(opened.models.values()))
            models[name] = Model(base.through(merged, identity=name), opened.files)
    inputs = tuple(model.checkpoint for name, model in models.items() if name not in made)
    return replace(made[""], inputs=inputs)


def _opened(merge: MergeDocument, models: Mapping[str, Model]) -> OpenedMerge:
    tokens = retokenized(merge, models)
    sources = tokens.sources
    plan = layout(merge, {model: source.tensors for model, source in sources.items()})
    matched, positions = _matched(merge, plan, sources)
    names = {model: name for name, model in named_models(merge.references).items()}
    locked = {**names, base_of(merge): ""}
    # A position beyond a tensor's models is the base once more.
    origins = {
        position: {
            name: (locked[origin.models[i % len(origin.models)]], origin.stored[i % len(origin.models)])
            for name, origin in plan.origins.items()
        }
        for i, position in enumerate(positions)
    }
    return OpenedMerge(
        models={names[model]: sources[model] for model in merge.references},
        match=replace(matched, notes=[*tokens.notes, *matched.notes]),
        choice=_choice(merge, plan, matched),
        files=_files(merge, plan, tokens),
        origins=origins,
    )


def _matched(merge: MergeDocument, plan: Layout, sources: Mapping[str, Checkpoint]) -> tuple[Match, list[str]]:
    """The match of what is merged, and the names of its positions, the base's ("") first."""
    first = next(iter(plan.origins.values()))
    if plan.layers is None:
        base, *others = (sources[model] for model in first.models)
        experts = dict(zip(_position_names(merge, plan), others, strict=True))
    else:
        base, *columns = (_column(plan, i, sources) for i in range(len(first.models)))
        experts = dict(zip(_position_names(merge, plan), columns, strict=True))
    if merge.merge_method == "passthrough":
        return _untouched(merge, plan, base)
    found = match(base, experts)
    extra = [f"{name}: left out, as the base lacks them: {', '.join(own)}" for name, own in found.heads.items() if own]
    matched = replace(found, heads={name: [] for name in experts}, notes=[*found.notes, *extra])
    if merge.merge_method == "multislerp" and not _based(merge, first):
        # All models are experts of the mean, the first too, as the last of them.
        itself: dict[str, TensorSource] = {_ITSELF: base}
        return replace(matched, experts={**matched.experts, **itself}), ["", *experts, _ITSELF]
    return matched, ["", *experts]


def _position_names(merge: MergeDocument, plan: Layout) -> list[str]:
    """A name for every expert: its model's, or those of all models that stand there."""
    short = {model: name for name, model in named_models(list(merge.references)).items()}
    columns = zip(*(origin.models[1:] for origin in plan.origins.values()), strict=True)
    return ["+".join(dict.fromkeys(short[model] for model in models)) for models in columns]


def _column(plan: Layout, i: int, sources: Mapping[str, Checkpoint]) -> Checkpoint:
    """The i-th source of every slice as one checkpoint with the output's names."""
    models = {origin.models[i]: None for origin in plan.origins.values()}
    label = " + ".join(sources[model].label for model in models)
    parts = {name: (sources[origin.models[i]], origin.stored[i]) for name, origin in plan.origins.items()}
    first = sources[next(iter(models))]
    return first.through(Composed(label, parts), identity=(i, *models))


def _untouched(merge: MergeDocument, plan: Layout, base: Checkpoint) -> tuple[Match, list[str]]:
    """Tensors of one model each, copied as they are unless they are scaled."""
    scaled = {
        name
        for name, origin in plan.origins.items()
        if base.tensors[name].is_floating and _bound(merge, origin, name).values["scale"] != 1
    }
    merged = [name for name in base.tensors if name in scaled]
    copied = [name for name in base.tensors if name not in scaled]
    return Match(base, {_ITSELF: base}, merged, copied, {_ITSELF: []}, {_ITSELF: ""}, {}, []), ["", _ITSELF]


def _based(merge: MergeDocument, origin: Origin) -> bool:
    return bool(merge.base_model or (origin.part and origin.part.base_model))


def _bound(merge: MergeDocument, origin: Origin, name: str) -> Bound:
    based = _based(merge, origin)
    # mergekit wants no weight of a base.
    optional = [based, *([False] * (len(origin.models) - 1))]
    values = values_for(
        merge,
        origin.part,
        origin.sources,
        name=name,
        stored=origin.stored,
        place=origin.place,
        optional=optional,
    )
    if merge.merge_method == "multislerp" and not based:
        values = replace(values, each=(*values.each, values.each[0]))
    try:
        return bound(merge.merge_method, values, based=based)
    except RecipeError as error:
        raise RecipeError(f"{error.message} (tensor {name!r})", hint=error.hint) from error


def _choice(merge: MergeDocument, plan: Layout, matched: Match) -> Choice:
    """The method of every tensor; tensors with the same parameters share one."""
    shared: dict[object, Bound] = {}
    by_name: dict[str, Bound] = {}
    for name in matched.merged:
        found = _bound(merge, plan.origins[name], name)
        by_name[name] = shared.setdefault((found.method.name, tuple(found.values.items())), found)
    default = next(iter(by_name.values()), None) or get(merge.signature.ours).bind()
    return Choice(default, by_name=by_name)


def _files(merge: MergeDocument, plan: Layout, tokens: Retokenized) -> Files:
    files = dict(tokens.files)
    config = config_for(
        files.get("config.json"), layers=plan.layers, vocabulary=tokens.vocabulary_size, dtype=merge.written_dtype
    )
    if config is not None:
        files["config.json"] = config
    return files
