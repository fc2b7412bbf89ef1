"""Plan: what a run will read, hold and write, phase by phase, from headers alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from supermerge.assemble import Choice, output_infos
from supermerge.assemble.adapter import AdapterLayout
from supermerge.checkpoint import Match
from supermerge.errors import ResourceError
from supermerge.learn.basis import Basis
from supermerge.methods.settings import LearnSettings
from supermerge.plan.activations import Activations, activations
from supermerge.plan.adapter import planned_adapter
from supermerge.plan.learning import PlannedLearning, experts_bytes
from supermerge.plan.memory import (
    merging_bytes,
    model_bytes,
    model_class_bytes,
    report_bytes,
    statistics_bytes,
    stored_statistics_bytes,
)
from supermerge.plan.rehearsal import survey_passes
from supermerge.plan.tree import TreeCost, tree_cost
from supermerge.recipe import Recipe
from supermerge.report.numbers import size
from supermerge.resolve import Opened, learn_settings, opened
from supermerge.resources import available_bytes, free_disk_bytes, resident_bytes

# Report, charts, card, logs and locks of one run, generously.
_SIDE_BYTES = 10_000_000
# Streaming pace of one pass, bytes a second: what two cores with a local disk reach or exceed.
_PACE = 0.4e9


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """One phase: bytes read from and written to disk, and the most memory held in it."""

    name: str
    what: str
    reads: int
    holds: int
    writes: int


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """The base or an expert: what was found under its reference."""

    name: str
    ref: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. Sizes are bytes; None is unknown before the first step, or not applicable."""

    method: str
    title: str
    paper: str
    models: tuple[PlannedModel, ...]
    merged: int
    copied: int
    heads: Mapping[str, int]
    coefficients: int | None
    steps: int | None
    residency: str | None
    """Where the experts lie between the readings of learning: `disk`, `memory`, or in memory in a coding."""
    learned_as: Mapping[str, int] | None
    """Of the merged tensors: `factors` of adapters, beside a frozen base; dense `task_vectors`; `unchanged` by all."""
    phases: tuple[PlannedPhase, ...]
    peak_memory: int
    activations: Literal["none", "counted", "unknown"]
    """Whether `peak_memory` has those of the tasks' models, for full batches of the greatest length."""
    memory_budget: int | None
    memory_available: int
    output: str | None
    output_bytes: int
    disk_free: int
    seconds: float | None
    notes: tuple[str, ...]
    refusals: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)

    def require_feasible(self) -> None:
        """Raise ResourceError, with every reason, where the run cannot fit or its output exists."""
        if self.refusals:
            hint = "Change `memory` or `output` of the recipe, free some space, or replace the old output with --force."
            raise ResourceError("\n".join(self.refusals), hint=hint)


def plan(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Plan:
    """Plan `recipe` without reading a tensor: checkpoints and parameters are checked, nothing is written.

    What cannot fit is listed in `refusals`; `require_feasible()` raises it. Raises RecipeError, CheckpointError.
    """
    wanted = Recipe.of(recipe)
    target = output if output is not None else wanted.output.path
    settings = learn_settings(wanted)
    with opened(wanted) as sources:
        sources.choice.rehearse(len(sources.match.experts))
        return _planned(wanted, sources, settings, None if target is None else Path(target), force)


def _planned(recipe: Recipe, sources: Opened, settings: LearnSettings | None, target: Path | None, force: bool) -> Plan:
    choice, match = sources.choice, sources.match
    method = choice.default.method
    # Looked at before the activations load what a run loads later.
    available, resident, classes = available_bytes(), resident_bytes(), model_class_bytes()
    active = activations(recipe, sources) if recipe.tasks else None
    # With tasks, what its tensors are called is known once there is a model.
    layout = planned_adapter(
        recipe, match, choice, {name: name for name in match.base.tensors} if recipe.tasks else None
    )
    output_bytes = _output_bytes(recipe, sources, layout)
    # With tasks, one model stays in memory from the beginning to the end.
    held = resident + (classes + model_bytes(match) if recipe.tasks else 0)
    learning = None if settings is None else PlannedLearning.of(match, settings)
    tree = tree_cost(settings, recipe, match)
    phases = _phases(recipe, match, choice, learning, tree, output_bytes, held, active or Activations(0, 0))
    free = free_disk_bytes(target or Path())
    existing = target if target is not None and target.exists() else None
    peak = max(phase.holds for phase in phases)
    temporary = sum(phase.writes for phase in phases if phase.name == "derive") + (tree.at_once if tree else 0)
    return Plan(
        method=method.name,
        title=method.title,
        paper=method.paper,
        models=_models(recipe, sources),
        merged=len(match.merged),
        copied=len(match.copied),
        heads={name: len(tensors) for name, tensors in match.heads.items() if tensors},
        coefficients=len(learning.basis.names) * len(match.merged)
        if learning and learning.settings.granularity == "tensor"
        else None,
        steps=settings.steps if settings else None,
        residency=learning.residency if learning else None,
        learned_as=learning.counts if learning else None,
        phases=phases,
        peak_memory=peak,
        activations=_known(phases, active),
        memory_budget=recipe.memory,
        memory_available=available,
        output=None if target is None else str(target),
        output_bytes=output_bytes,
        disk_free=free,
        seconds=None if settings else sum(phase.reads + phase.writes for phase in phases) / _PACE,
        notes=(
            *match.notes,
            *(learning.division.notes if learning else ()),
            *([f"the output is {layout.saved.described}"] if layout else []),
            *([f"{existing} exists: a run needs --force"] if existing else []),
        ),
        refusals=tuple(
            _refusals(recipe, peak, resident + available, output_bytes, temporary, free, None if force else existing)
        ),
    )


def _phases(
    recipe: Recipe,
    match: Match,
    choice: Choice,
    learning: PlannedLearning | None,
    tree: TreeCost | None,
    output_bytes: int,
    held: int,
    active: Activations,
) -> tuple[PlannedPhase, ...]:
    base, experts = sum(info.nbytes for info in match.base.tensors.values()), experts_bytes(match, match.merged)
    scored = [name for name, task in recipe.tasks.items() if task.test is not None]
    phases: list[PlannedPhase] = []
    if learning is not None:
        settings, basis = learning.settings, learning.basis
        # The merge makes the vectors again, piece by piece.
        merged = basis.rehearsal().bound(choice.default.method, lambda base, vectors, _: base + vectors[0])
        choice = replace(choice, default=merged)
        if basis.derived:
            phases.append(_deriving(match, basis, base + experts, held, learning.derived_bytes))
        holds = held + learning.holds + active.learning
        what, reads, written = f"up to {settings.steps} steps", learning.reads, 0
        if tree is not None:
            what, written = f"{what} for each of {tree.groups} groups", tree.written
            reads = tree.groups * base + (reads - base) * tree.members // len(match.experts)
        phases.append(PlannedPhase("learn", what, reads, holds, written))
    merging = held + merging_bytes(match, choice)
    if choice.default.scope == "model":
        passes = survey_passes(choice.default, len(match.experts))
        what = "once over all tensors" if passes == 1 else f"{passes} times over all tensors"
        phases.append(PlannedPhase("survey", what, passes * (base + experts), merging, 0))
    makers = learning.basis.members if learning else []
    kinds = list(dict.fromkeys(kind for bound in (*choice.bounds, *makers) for kind in bound.kinds))
    if kinds:
        measuring = held + statistics_bytes(match, kinds) + active.learning
        written = len(match.experts) * stored_statistics_bytes(match, kinds)
        phases.append(PlannedPhase("statistics", ", ".join(kinds), 2 * len(kinds) * experts, measuring, written))
    phases.append(PlannedPhase("merge", f"{len(match.merged)} tensors", base + experts, merging, output_bytes))
    if scored:
        what = f"base, experts and the merged model on {len(scored)} tasks"
        phases.append(PlannedPhase("evaluate", what, base + experts + output_bytes, held + active.scoring, 0))
    report = report_bytes(pictures=bool(scored) or learning is not None)
    phases.append(PlannedPhase("report", "page, charts, model card", 0, held + report, _SIDE_BYTES))
    return tuple(phases)


def _deriving(match: Match, basis: Basis, stored: int, held: int, writes: int) -> PlannedPhase:
    """Make the vectors that are in no expert's file, in fp32."""
    maker = basis.rehearsal().bound(basis.members[0].method, basis.derive)
    passes = 1 + (survey_passes(maker, len(match.experts)) if maker.scope == "model" else 0)
    made = [f"task vectors of {basis.on.method.name}"] if basis.on else []
    made += [f"the merge of {basis.start.method.name} to start from"] if basis.start else []
    return PlannedPhase(
        "derive", " and ".join(made), passes * stored, held + merging_bytes(match, Choice(maker)), writes
    )


def _known(phases: tuple[PlannedPhase, ...], active: Activations | None) -> Literal["none", "counted", "unknown"]:
    if not any(phase.name in ("learn", "evaluate") for phase in phases):
        return "none"
    return "unknown" if active is None else "counted"


def _output_bytes(recipe: Recipe, sources: Opened, layout: AdapterLayout | None) -> int:
    dtype = getattr(torch, recipe.output.dtype) if recipe.output.dtype else None
    infos = output_infos(sources.match, dtype) if layout is None else layout.saved.infos(dtype or torch.float32)
    merged = sum(info.nbytes for info in infos)
    heads = sources.match.heads
    return merged + sum(sources.experts[name].tensors[head].nbytes for name in heads for head in heads[name])


def _models(recipe: Recipe, sources: Opened) -> tuple[PlannedModel, ...]:
    refs = {"base": recipe.base, **{name: expert.ref for name, expert in recipe.experts.items()}}
    return tuple(
        PlannedModel(
            name,
            refs[name],
            len(source.tensors),
            sum(info.numel for info in source.tensors.values()),
            sum(info.nbytes for info in source.tensors.values()),
        )
        for name, source in {"base": sources.base, **sources.experts}.items()
    )


def _refusals(
    recipe: Recipe, peak: int, room: int, output_bytes: int, temporary: int, free: int, existing: Path | None
) -> list[str]:
    found = []
    if recipe.memory is not None and peak > recipe.memory:
        found.append(f"memory: the run needs about {size(peak)}, and the recipe allows {size(recipe.memory)}")
    elif peak > room:
        found.append(f"memory: the run needs about {size(peak)}, and it can have {size(room)}")
    needed = output_bytes + _SIDE_BYTES + temporary
    if needed > free:
        found.append(f"disk: the run needs {size(needed)}, and {size(free)} are free")
    if existing is not None:
        found.append(f"{existing}: exists already")
    return found
