"""Plan: what a run will read, hold and write, phase by phase, from headers alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from supermerge.accelerator import CPU, named
from supermerge.assemble import output_infos
from supermerge.assemble.adapter import AdapterLayout
from supermerge.distributed import processes, processes_here
from supermerge.errors import ResourceError
from supermerge.methods.settings import LearnSettings
from supermerge.plan.activations import Activations, activations
from supermerge.plan.adapter import planned_adapter
from supermerge.plan.learning import PlannedLearning
from supermerge.plan.memory import (
    OFFLOAD,
    SHARDED,
    PlannedMerge,
    device_of,
    model_bytes,
    model_class_bytes,
    offloaded_bytes,
    sharded_bytes,
)
from supermerge.plan.phases import SIDE_BYTES, Phases, PlannedPhase, learned_merge, maker_of
from supermerge.plan.residency import Chosen, Residency, choose, with_residency
from supermerge.plan.tree import tree_cost
from supermerge.recipe import Recipe
from supermerge.report.numbers import size
from supermerge.resolve import Opened, learn_settings, opened
from supermerge.resources import available_bytes, free_disk_bytes, resident_bytes

# Streaming pace of one pass, bytes a second: what two cores with a local disk reach or exceed.
_PACE = 0.4e9


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
    """Where the experts lie between the readings of learning: `disk`, `memory`, or in memory in a coding;
    with `offload` on the disk, and the weights of the model too; with `sharded` on the disk, and the model in all."""
    residencies: tuple[Residency, ...]
    """What was considered, in the order of preference."""
    threads: int
    """How many threads merge."""
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
    disk_needed: int
    """The output, what is beside its weights, and what is kept until it is whole."""
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
            raise ResourceError("\n".join(self.refusals))


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
    learn_settings(wanted)  # mistakes in them surface before those of checkpoints
    with opened(wanted) as sources:
        return plan_of(wanted, sources, output=output, force=force)


def plan_of(
    recipe: Recipe, sources: Opened, *, output: str | os.PathLike[str] | None = None, force: bool = False
) -> Plan:
    """The same for a recipe whose checkpoints are open."""
    target = output if output is not None else recipe.output.path
    sources.choice.rehearse(len(sources.match.experts))
    return _planned(recipe, sources, learn_settings(recipe), None if target is None else Path(target), force)


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
    tied = any(task.is_generation for task in recipe.tasks.values())
    learning = None
    if settings is not None:
        learning = PlannedLearning.of(match, settings, len(recipe.tasks), processes=processes(), tied=tied)
    tree = tree_cost(settings, recipe, match)
    usual = Phases(
        recipe,
        match,
        PlannedMerge.of(match, choice if learning is None else learned_merge(choice, learning.basis)),
        None if learning is None else maker_of(match, learning.basis),
        learning,
        tree,
        active or Activations(0, 0),
        output_bytes,
        resident,
        0,
        min(resident + available // processes_here(), recipe.memory or sys.maxsize),
    )

    def phases_of(residency: str | None) -> Phases:
        # With tasks, one model stays until all is scored: in memory, or of it what is used at once.
        if not recipe.tasks:
            return replace(usual, learning=with_residency(learning, residency))
        kept = replace(usual, held=resident + classes, learning=with_residency(learning, residency))
        if device_of(match, residency) != CPU:
            return replace(kept, active=Activations(0, 0))
        model = model_bytes(match)
        if residency in (OFFLOAD, SHARDED):
            model = offloaded_bytes(match)
        if residency == SHARDED:  # what is scored, the first process has in a file
            model += sharded_bytes(match, processes(), tied=tied)
        return replace(kept, held=kept.held + model, model=model)

    chosen = choose(recipe, phases_of)
    learning, phases = chosen.phases.learning, tuple(chosen.phases)
    free = free_disk_bytes(target or Path())
    existing = target if target is not None and target.exists() else None
    device = device_of(match, chosen.name) if recipe.tasks else CPU
    needed = output_bytes + SIDE_BYTES + sum(phase.writes for phase in phases if phase.name == "derive")
    needed += tree.at_once if tree else 0
    if chosen.name == OFFLOAD:
        needed += learning.scratch if learning else model_bytes(match)
    if chosen.name == SHARDED:
        needed += model_bytes(match)
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
        residency=learning.residency if learning else chosen.name,
        residencies=chosen.considered,
        threads=chosen.phases.threads,
        learned_as=learning.counts if learning else None,
        phases=phases,
        peak_memory=chosen.phases.peak,
        activations=_known(phases, active),
        memory_budget=recipe.memory,
        memory_available=available,
        output=None if target is None else str(target),
        output_bytes=output_bytes,
        disk_needed=needed,
        disk_free=free,
        seconds=None if settings else sum(phase.reads + phase.writes for phase in phases) / _PACE,
        notes=(
            *match.notes,
            *(learning.division.notes if learning else ()),
            *([f"the output is {layout.saved.described}"] if layout else []),
            *([f"tasks are computed on {named(device)}"] if device != CPU else []),
            *([f"{existing} exists: a run needs --force"] if existing else []),
        ),
        refusals=tuple(_refusals(chosen, needed, free, None if force else existing)),
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


def _refusals(chosen: Chosen, needed: int, free: int, existing: Path | None) -> list[str]:
    found, phases = [], chosen.phases
    if phases.peak > phases.room:
        most = "the recipe allows" if phases.room == phases.recipe.memory else "it can have"
        least = f" (residency {chosen.name}, the least)" if len(chosen.considered) > 1 else ""
        needs = f"memory: the run needs about {size(phases.peak)}{least}, and {most} {size(phases.room)}"
        advice = ["raise `memory`"] if phases.room == phases.recipe.memory else ["free some"]
        advice += ["lower `batch_size` or `max_length` of the tasks"] if phases.recipe.tasks else []
        found.append(f"{needs}; {', or '.join(advice)}")
    if needed > free:
        found.append(
            f"disk: the run needs {size(needed)}, and {size(free)} are free; free some, or write to another disk"
        )
    if existing is not None:
        found.append(f"{existing}: exists already; replace it with --force, or write elsewhere with -o")
    return found
