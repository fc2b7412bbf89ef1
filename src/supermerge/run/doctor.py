"""`supermerge doctor`: every check that a run makes, and some that cost it too much, without merging anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from supermerge.assemble import Nowhere, merge_into
from supermerge.checkpoint import Checkpoint, Match, open_expert
from supermerge.checkpoint.published import require_as_published
from supermerge.errors import SupermergeError
from supermerge.events import Event, emit, subscribed
from supermerge.learn.basis import Basis
from supermerge.learn.objectives import weighted_objectives
from supermerge.plan import plan
from supermerge.recipe import Expert, Recipe
from supermerge.relation import require_plausible, require_related
from supermerge.report.numbers import size
from supermerge.resolve import chosen_methods, learn_settings, opened
from supermerge.run.measuring import kinds_of
from supermerge.run.prepared import Prepared, prepared
from supermerge.run.rows import read_task_rows
from supermerge.tasks.loadable import loading_differences

Opener = Callable[[ExitStack], Checkpoint]

Status = Literal["ok", "warning", "failed", "skipped"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table: what was checked, and what was found. `code` is the exit code that a run would end with."""

    check: str
    status: Status
    found: str
    hint: str | None = None
    code: int = 0


@dataclass(slots=True)
class Diagnosis:
    """Everything that was checked, in the order in which a run would."""

    findings: list[Finding]

    @property
    def code(self) -> int:
        """The exit code of the first check that failed; 0 where none did."""
        return next((finding.code for finding in self.findings if finding.status == "failed"), 0)

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON values."""
        rows = [{"check": f.check, "status": f.status, "found": f.found, "hint": f.hint} for f in self.findings]
        return {"ok": self.code == 0, "exit_code": self.code, "checks": rows}

    def tried(self, check: str, work: Callable[[], tuple[Result, str]]) -> Result | None:
        """Add what `work` found; where it raises, a row that says why, and None."""
        try:
            result, found = work()
        except SupermergeError as error:
            self.findings.append(Finding(check, "failed", error.message, error.hint, error.exit_code))
            return None
        self.findings.append(Finding(check, "ok", found))
        return result

    def skipped(self, *checks: str) -> None:
        """Add checks that cannot be made because an earlier one failed."""
        self.findings += [Finding(check, "skipped", "not checked, because of the above") for check in checks]

    def hear(self, event: Event) -> None:
        """Warnings become rows of their own."""
        if event.kind == "warning":
            self.findings.append(Finding("warning", "warning", event.fields["message"]))


def doctor(recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any]) -> Diagnosis:
    """Check recipe, checkpoints (headers, hashes, every value), data, heads, memory and disk; nothing is written."""
    diagnosis = Diagnosis([])
    with subscribed(diagnosis.hear):
        _examine(diagnosis, recipe)
    return diagnosis


def _examine(diagnosis: Diagnosis, given: Recipe | str | os.PathLike[str] | Mapping[str, Any]) -> None:
    recipe = diagnosis.tried("recipe", lambda: _described(Recipe.of(given)))
    if recipe is None:
        return
    known = diagnosis.tried("method", lambda: (chosen_methods(recipe), _settings(recipe)))
    with ExitStack() as stack:
        fit = _checkpoints(diagnosis, recipe, stack)
        if fit is None or known is None:
            diagnosis.skipped("memory and disk", "values")
        else:
            diagnosis.tried("relation to the base", lambda: (require_related(fit), "like fine-tuned from it"))
            diagnosis.tried("memory and disk", lambda: _fits(recipe))
            diagnosis.tried("values", lambda: _values(fit))
    rows = diagnosis.tried("data", lambda: _rows(recipe)) if recipe.tasks else {}
    if None in (known, fit, rows):
        diagnosis.skipped(*["tasks"][: len(recipe.tasks)])
    elif recipe.tasks or learn_settings(recipe) is not None:
        _tasks(diagnosis, recipe)


def _described(recipe: Recipe) -> tuple[Recipe, str]:
    return recipe, f"{len(recipe.experts)} experts, method {recipe.method.name}, {len(recipe.tasks)} tasks"


def _settings(recipe: Recipe) -> str:
    settings = learn_settings(recipe)
    return f"{recipe.method.name}, " + ("without data" if settings is None else f"up to {settings.steps} steps")


def _checkpoints(diagnosis: Diagnosis, recipe: Recipe, stack: ExitStack) -> Match | None:
    """Every checkpoint by itself, then all of them together."""
    openers: dict[str, Opener] = {"base": _opener(recipe.base)}
    openers |= {name: _expert_opener(expert, recipe.base) for name, expert in recipe.experts.items()}
    if recipe.mergekit is not None:
        openers = {ref: _opener(ref) for ref in recipe.mergekit.inputs}
    alone = [diagnosis.tried(name, lambda opener=opener: _checkpoint(opener)) for name, opener in openers.items()]
    if None in alone:
        diagnosis.skipped("base and experts together")
        return None
    return diagnosis.tried("base and experts together", lambda: _matched(recipe, stack))


def _opener(ref: str) -> Opener:
    return lambda stack: stack.enter_context(Checkpoint.open(ref))


def _expert_opener(expert: Expert, base: str) -> Opener:
    return lambda stack: open_expert(expert.model, _opener(base)(stack), stack, adapter=expert.adapter)


def _checkpoint(opener: Opener) -> tuple[str, str]:
    with ExitStack() as stack:
        checkpoint = opener(stack)
        ref = checkpoint.label
        checkpoint.side_files()
        files = [file.path for file in checkpoint.fingerprint()]
        published = require_as_published(files)
        total = sum(info.nbytes for info in checkpoint.tensors.values())
        name, differences = loading_differences(checkpoint, whole=False)
    parts = [f"{len(checkpoint.tensors):,} tensors, {size(total)}"]
    parts += [f"{published} files as published on the hub"] if published else []
    parts += [f"a whole {name}"] if name and not differences else []
    if differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        emit("warning", message=f"{ref}: as {name} of transformers, {differences[0]}{more}")
    return ref, ", ".join(parts)


def _matched(recipe: Recipe, stack: ExitStack) -> tuple[Match, str]:
    fit = stack.enter_context(opened(recipe)).match
    return fit, ". ".join([f"{len(fit.merged):,} tensors to merge, {len(fit.copied):,} from the base", *fit.notes])


def _fits(recipe: Recipe) -> tuple[bool, str]:
    planned = plan(recipe, force=True)
    planned.require_feasible()
    unknown = " and activations" if planned.activations == "unknown" else ""
    found = f"about {size(planned.peak_memory)}{unknown} of {size(planned.memory_available)} free, "
    found += f"up to {size(planned.disk_needed)} of {size(planned.disk_free)} on the disk"
    exists = planned.output is not None and Path(planned.output).exists()
    return True, found + (f"; {planned.output} exists: a run needs --force" if exists else "")


def _values(fit: Match) -> tuple[bool, str]:
    """Read everything once: NaN, infinity and absurd sizes are found where they are."""
    geometry = merge_into(Nowhere(), "linear", fit, names=fit.merged, geometry=True).geometry
    if geometry is None:
        return True, "nothing to merge"
    require_plausible(geometry, fit)
    norms = zip(fit.experts, geometry.relative_norms, strict=True)
    return True, "all finite; distances from the base: " + ", ".join(f"{name} {norm:.2%}" for name, norm in norms)


def _rows(recipe: Recipe) -> tuple[bool, str]:
    counts = {
        name: {"labelled": len(rows.labelled), "unlabelled": len(rows.unlabelled), "test": len(rows.test)}
        for name, rows in read_task_rows(recipe.tasks).items()
    }
    return True, "; ".join(
        f"{name}: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items() if count)}"
        for name, kinds in counts.items()
    )


def _tasks(diagnosis: Diagnosis, recipe: Recipe) -> None:
    """Heads, tokenizers and labels, task by task, on the model that they share."""
    with ExitStack() as stack:
        ready = diagnosis.tried(
            "model for the tasks", lambda: (stack.enter_context(prepared(recipe)), "built, and filled from the base")
        )
        if ready is None:
            diagnosis.skipped(*(f"task {name}" for name in recipe.tasks))
            return
        for name in recipe.tasks:
            diagnosis.tried(f"task {name}", lambda name=name: _task(ready, name))
        diagnosis.tried("what is learned from", lambda: _learnable(ready))


def _task(ready: Prepared, name: str) -> tuple[bool, str]:
    from supermerge.tasks.evaluate import rehearse

    bench, rows = ready.require_bench("doctor"), ready.rows[name]
    parts = (rows.labelled, rows.test, rows.unlabelled)
    encoded = [len(bench.encode(name, part)) for part in parts]
    some = next((part for part in parts if part), None)
    if some is not None:
        rehearse(bench, name, some)
    labels = bench.heads[name].labels
    return True, f"{sum(encoded):,} examples encoded" + (f", classes {', '.join(labels)}" if labels else "")


def _learnable(ready: Prepared) -> tuple[bool, str]:
    settings = learn_settings(ready.recipe)
    if settings is None:
        kinds = kinds_of(ready.opened.choice.bounds)
        return True, f"statistics: {', '.join(kinds)}" if kinds else "nothing: the method needs no data"
    Basis.of(settings, list(ready.match.experts), ready.match)
    session = ready.session(None)
    session.require_rows(weighted_objectives(settings.loss))
    return True, f"enough examples for {settings.loss if isinstance(settings.loss, str) else ' + '.join(settings.loss)}"
