"""Matching experts to their base: what is merged, copied, a head; or one message with every difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.checkpoint.contents import same_tensors, shared_with, tied_names
from supermerge.checkpoint.names import NameMap, map_names, modules, pattern
from supermerge.checkpoint.renamed import Renamed
from supermerge.checkpoint.source import TensorInfo, TensorSource
from supermerge.errors import CheckpointError, UsageError

LARGEST_OWN_PART = 0.5  # of the base's elements that no expert has: beyond it, they are another architecture
LINES_PER_EXPERT = 24


@dataclass(frozen=True, slots=True)
class Match:
    """Base and experts that fit, and how."""

    base: Checkpoint
    experts: dict[str, TensorSource]
    """Seen under the base's names."""
    merged: list[str]
    """Floating tensors that base and every expert have, in the base's order."""
    copied: list[str]
    """Tensors that the output takes from the base: integer and boolean ones, and those that no expert has."""
    heads: dict[str, list[str]]
    """What the base lacks, per expert, by stored name."""
    prefixes: dict[str, str]
    """What stands in front of the base's names in each expert's file; empty where nothing does."""
    tied: dict[str, str]
    """Alias -> the merged tensor that it shares its values with, in the base and in every expert."""
    notes: list[str]
    """What the user should know and did not ask."""


def match(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> Match:
    """Find out how the experts' tensors correspond to the base's.

    Prefixes that only one side has are inferred from the names. A tied alias that one side leaves out is found by its
    bytes. Raises one CheckpointError that lists every difference of every expert: tensors missing, other shapes, other
    kinds of dtype, layers the base lacks; a checkpoint listed twice, or as base and expert, or with equal weights.
    """
    if not experts:
        raise UsageError("there are no experts to merge", hint="Name at least one expert.")
    problems: dict[str, list[str]] = {name: [] for name in experts}
    _find_repeated(base, experts, problems)
    maps = {name: map_names(base.tensors, expert.tensors) for name, expert in experts.items()}
    notes: list[str] = [note for expert in experts.values() for note in expert.notes]
    for name, expert in experts.items():
        if not problems[name]:
            _check_names(base, expert, maps[name], problems[name])
            _add_missing_aliases(base, expert, name, maps[name], notes)
    own = _own_tensors(base, maps, problems)
    for name, expert in experts.items():
        _check_tensors(base, expert, maps[name], problems[name])
    heads = {name: _extra(base, expert, name, maps[name], problems[name], notes) for name, expert in experts.items()}
    _raise(base, experts, problems)

    merged = [info.name for info in base.tensors.values() if info.is_floating and info.name not in own]
    views: dict[str, TensorSource] = {name: Renamed(expert, maps[name].names) for name, expert in experts.items()}
    _find_equal(base, views, merged, problems)
    if not merged:
        problems[next(iter(experts))].append(
            "has no floating tensor in common with the base: there is nothing to merge"
        )
    _raise(base, experts, problems)
    merged_set = set(merged)
    if own:
        notes.append(f"kept from the base, as no expert has them: {_modules(own)}")
    return Match(
        base=base,
        experts=views,
        merged=merged,
        copied=[name for name in base.tensors if name not in merged_set],
        heads=heads,
        prefixes={name: mapping.expert_prefix for name, mapping in maps.items()},
        tied=tied_names(base, views, merged),
        notes=notes,
    )


def _find_repeated(base: Checkpoint, experts: Mapping[str, Checkpoint], problems: dict[str, list[str]]) -> None:
    seen: dict[object, str] = {}
    for name, expert in experts.items():
        if expert.identity == base.identity:
            problems[name].append("is the base itself")
        elif expert.identity in seen:
            problems[name].append(f"is the same checkpoint as expert {seen[expert.identity]!r}")
        seen.setdefault(expert.identity, name)


def _find_equal(
    base: Checkpoint, views: Mapping[str, TensorSource], merged: list[str], problems: dict[str, list[str]]
) -> None:
    """Copies under another name: their task vectors are zero, or count twice."""
    earlier: dict[str, TensorSource] = {}
    for name, view in views.items():
        if same_tensors(base, view, merged):
            problems[name].append("holds the same weights as the base: it was not fine-tuned, or is the wrong file")
        for other, other_view in earlier.items():
            if same_tensors(other_view, view, merged):
                problems[name].append(f"holds the same weights as expert {other!r}")
        earlier[name] = view


def _check_names(base: Checkpoint, expert: Checkpoint, mapping: NameMap, problems: list[str]) -> None:
    if not mapping.names:
        problems.append(
            f"has none of the base's {len(base.tensors)} tensor names: another architecture "
            f"(base: {next(iter(base.tensors))!r}, expert: {next(iter(expert.tensors))!r})"
        )
    elif mapping.rival is not None:
        prefix = mapping.base_prefix or mapping.expert_prefix
        problems.append(f"could be meant by its tensors under {prefix!r} or those under {mapping.rival!r}")


def _add_missing_aliases(base: Checkpoint, expert: Checkpoint, label: str, mapping: NameMap, notes: list[str]) -> None:
    """A tied tensor is often stored once: give the expert's missing name the stored name of its twin in the base."""
    for info in base.tensors.values():
        if not info.is_floating or info.name in mapping.names:
            continue
        twin = shared_with(base, info.name, list(mapping.names))
        if twin is not None:
            mapping.names[info.name] = mapping.names[twin]
            notes.append(f"expert {label!r} stores {info.name} once, as {mapping.names[twin]} (tied in the base)")


def _own_tensors(base: Checkpoint, maps: Mapping[str, NameMap], problems: dict[str, list[str]]) -> dict[str, str]:
    """Floating tensor -> outermost of its modules that no expert has any part of; what else is missing is a problem."""
    floating = [info for info in base.tensors.values() if info.is_floating]
    shared = {name for mapping in maps.values() for name in mapping.names}
    shared_modules = {module for name in shared for module in modules(name)}
    own: dict[str, str] = {}
    for info in floating:
        unshared = [module for module in modules(info.name) if module not in shared_modules]
        if unshared and info.name not in shared:
            own[info.name] = unshared[0]
    if _numel(base, own) > LARGEST_OWN_PART * _numel(base, (info.name for info in floating)):
        own = {}
    for label, mapping in maps.items():
        missing = [info for info in floating if info.name not in mapping.names and info.name not in own]
        if missing and not problems[label]:
            problems[label].extend(_grouped((info, "") for info in missing))
    return own


def _check_tensors(base: Checkpoint, expert: Checkpoint, mapping: NameMap, problems: list[str]) -> None:
    different: list[tuple[TensorInfo, str]] = []
    for name, stored in mapping.names.items():
        here, there = base.tensors[name], expert.tensors[stored]
        if here.shape != there.shape:
            different.append((here, f": shape {list(there.shape)}, the base's is {list(here.shape)}"))
        elif _kind(here.dtype) != _kind(there.dtype):
            different.append((here, f": dtype {_short(there.dtype)}, the base's is {_short(here.dtype)}"))
    problems.extend(_grouped(different))


def _extra(
    base: Checkpoint, expert: Checkpoint, label: str, mapping: NameMap, problems: list[str], notes: list[str]
) -> list[str]:
    """The expert's tensors that the base lacks and that belong to its head: no aliases, no further layers."""
    matched = set(mapping.names.values())
    known = {pattern(name) for name in base.tensors}
    head: list[str] = []
    layers: list[tuple[TensorInfo, str]] = []
    for info in expert.tensors.values():
        if info.name in matched:
            continue
        name = mapping.base_prefix + info.name.removeprefix(mapping.expert_prefix)
        if pattern(name) in known and pattern(name) != name:
            layers.append((info, ": the base has no such layer"))
            continue
        twin = shared_with(expert, info.name, sorted(matched)) if info.is_floating else None
        if twin is None:
            head.append(info.name)
        else:
            notes.append(f"expert {label!r}: {info.name} is {twin} again (tied), which the base stores once")
    problems.extend(_grouped(layers))
    return head


def _raise(base: Checkpoint, experts: Mapping[str, Checkpoint], problems: Mapping[str, list[str]]) -> None:
    lines: list[str] = []
    for name, found in problems.items():
        if found:
            lines.append(f"  {name} ({experts[name].label}):")
            lines.extend(f"    {line}" for line in found[:LINES_PER_EXPERT])
            if len(found) > LINES_PER_EXPERT:
                lines.append(f"    and {len(found) - LINES_PER_EXPERT} more such lines")
    if lines:
        count = sum(1 for found in problems.values() if found)
        raise CheckpointError(
            f"{count} of {len(problems)} experts do not fit the base {base.label}:\n" + "\n".join(lines),
            hint="Every expert must be fine-tuned from this base, whole, and be listed once. See `supermerge inspect`.",
        )


def _grouped(found: Iterable[tuple[TensorInfo, str]]) -> list[str]:
    """One line per parameter, whatever the number of layers; without a text the tensors are missing."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for info, text in found:
        key = (pattern(info.name), text)
        counts[key] += 1
        examples.setdefault(key, info.name)
    lines: list[str] = []
    for key, count in counts.items():
        name = examples[key] if count == 1 else f"{key[0]} ({count} tensors)"
        lines.append(name + (key[1] or ": missing"))
    return lines


def _modules(own: Mapping[str, str]) -> str:
    """Tensor name -> module, said by modules; a lone tensor by its name."""
    counts = Counter(own.values())
    said = {module if counts[module] > 1 else name: counts[module] for name, module in own.items()}
    return ", ".join(name if count == 1 else f"{name}* ({count} tensors)" for name, count in said.items())


def _numel(base: Checkpoint, names: Iterable[str]) -> int:
    return sum(base.tensors[name].numel for name in names)


def _kind(dtype: torch.dtype) -> str:
    return "floating" if dtype.is_floating_point else "boolean" if dtype is torch.bool else "integer"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
