"""The parameters that hold for one tensor, looked up as mergekit does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supermerge.errors import RecipeError
from supermerge.mergekit.document import MergeDocument, Parameters, Slice, Source
from supermerge.mergekit.settings import Scalar, Setting
from supermerge.mergekit.signatures import REQUIRED
from supermerge.methods.layers import interpolated


@dataclass(frozen=True, slots=True)
class Values:
    """Of one tensor: parameters of the merge, and those of every model in order."""

    whole: Mapping[str, Any]
    each: tuple[Mapping[str, Any], ...]


def values_for(
    merge: MergeDocument,
    part: Slice | None,
    sources: Sequence[Source | None],
    *,
    name: str,
    stored: Sequence[str],
    place: float,
    optional: Sequence[bool],
) -> Values:
    """The parameters of the output tensor `name`, `place` of the way through the layers of its slice.

    `sources` are what is said of each model (None for a base that is not among them), `stored` the tensor's names in
    them. Most special first: a model's own, the slice's, the document's, mergekit's default; of a list of values the
    first whose filter is part of the name. A parameter without default may be missing where a model is `optional`.
    Raises RecipeError where it is missing elsewhere.
    """
    common = [*([part.parameters] if part else []), merge.parameters]
    whole = {key: _looked_up(key, common, name, place) for key in merge.signature.whole}
    each: list[Mapping[str, Any]] = []
    for source, own_name, may_lack in zip(sources, stored, optional, strict=True):
        levels = [*([source.parameters] if source else []), *common]
        found = {key: _looked_up(key, levels, own_name, place) for key in merge.signature.each}
        each.append(dict(_with_defaults(merge, "each", found, name, may_lack)))
    return Values(dict(_with_defaults(merge, "whole", whole, name, False)), tuple(each))


def evaluate(setting: Setting, name: str, place: float) -> Scalar | None:
    """The value for the tensor called `name`, `place` of the way through the layers; None where no case fits."""
    for case in setting:
        if case.fits(name):
            return interpolated(case.value, place) if isinstance(case.value, tuple) else case.value
    return None


def _looked_up(key: str, levels: Sequence[Parameters], name: str, place: float) -> Scalar | None:
    for level in levels:
        value = evaluate(level[key], name, place) if key in level else None
        if value is not None:
            return value
    return None


def _with_defaults(
    merge: MergeDocument, kind: str, found: Mapping[str, Scalar | None], name: str, may_lack: bool
) -> Iterator[tuple[str, Any]]:
    for key, default in getattr(merge.signature, kind).items():
        value = found[key]
        if value is not None:
            yield key, value
        elif default is not REQUIRED:
            yield key, default
        elif not may_lack:
            raise RecipeError(
                f"{merge.merge_method}: parameter {key!r} is missing for tensor {name!r}",
                hint=f"Give {key} under the models or under 'parameters'; a list of values needs one without filter.",
            )
