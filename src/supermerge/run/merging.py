"""`supermerge.run`: a recipe in, a finished directory out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from supermerge.assemble import Choice, at_most_threads, give_back_freed_memory
from supermerge.checkpoint import Checkpoint, OutputDirectory, open_expert
from supermerge.distributed import Peers, united
from supermerge.errors import RecipeError, RefusedError
from supermerge.events import emit, phase
from supermerge.methods import get
from supermerge.methods.settings import LearnSettings
from supermerge.plan import plan_of
from supermerge.plan.memory import SHARDED
from supermerge.recipe import Recipe
from supermerge.recipe_paths import read_by_tasks
from supermerge.relation import require_plausible, require_related
from supermerge.report.results import ModelResult, Results, TaskResult
from supermerge.resolve import learn_settings, opened
from supermerge.resources import existing_directory
from supermerge.run.carried import carry, carry_groups
from supermerge.run.contest import contend
from supermerge.run.earlier import Earlier
from supermerge.run.journal import Journal, journalled
from supermerge.run.leading import led
from supermerge.run.learned import LearnedMerge, basis_of, learn_merge
from supermerge.run.measuring import measured
from supermerge.run.output import COEFFICIENTS, Written, write_lock, write_model_files, write_weights
from supermerge.run.prepared import Prepared, prepared
from supermerge.run.replacing import require_nothing_foreign
from supermerge.run.reporting import results_of, write_results
from supermerge.run.result import Result
from supermerge.run.sanity import worse_than_base
from supermerge.run.state import StateDirectory
from supermerge.verify import require_fitting, require_loadable


def run(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    resume: bool = True,
    allow_unrelated: bool = False,
) -> Result:
    """Merge as `recipe` says and write a finished directory: model, heads, scores, report, lock.

    The directory appears only when it is whole. An interrupted run leaves nothing but its state, which the same call
    continues from (`resume`). Test rows are for scoring alone, after the merge is written. Experts that do not look
    fine-tuned from the base are refused unless `allow_unrelated`.

    Errors: RecipeError, CheckpointError, ResourceError (too little memory or disk, an output that exists without
    `force`), DataError, RefusedError (learning diverged, or the merge is worse than the base: unless the recipe says
    `if_worse: warn`, its directory is then kept beside the output's place, under the name of `.refused`).
    """
    return run_beside((), recipe, output=output, force=force, resume=resume, allow_unrelated=allow_unrelated)


def run_beside(
    rivals: Sequence[str],
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    resume: bool = True,
    allow_unrelated: bool = False,
    earlier: Earlier | None = None,
) -> Result:
    """`run`, with other methods (`rivals`) scored on the same rows and shown in the same report.

    With `earlier` the output is the merge that this run continues, and is replaced by it.
    """
    wanted = Recipe.of(recipe)
    target = output if output is not None else wanted.output.path
    if target is None:
        raise RecipeError("output: the recipe names no directory.", hint="Set output.path, or pass --output.")
    path = Path(target)
    with ExitStack() as stack:
        peers = stack.enter_context(united())
        settings = learn_settings(wanted)
        sources = stack.enter_context(opened(wanted))
        planned = plan_of(wanted, sources, output=path, force=force)
        planned.require_feasible()
        journal = stack.enter_context(journalled())
        stack.enter_context(at_most_threads(planned.threads))
        # What fits, and so the numbers, is the first process's to say.
        residency = peers.exchange(planned.residency)[0]
        _require_shareable(peers, settings, residency)
        ready = stack.enter_context(prepared(wanted, residency, scratch=existing_directory(path), sources=sources))
        if earlier:
            earlier.announce()
        if not allow_unrelated:
            require_related(ready.match, earlier.newcomers if earlier else None)
        inputs = [checkpoint.directory for checkpoint in ready.opened.inputs if checkpoint.directory]
        if earlier:  # what it reads of the output itself, it carries over
            inputs = [place for place in inputs if not place.resolve().is_relative_to(path.resolve())]
        inputs += read_by_tasks(wanted.model_dump(mode="json")["tasks"], heads=earlier is None)
        if force:
            require_nothing_foreign(path)
        out, states = OutputDirectory(path, force=force, inputs=inputs), StateDirectory(path, keep=resume)
        # The state belongs to whoever has the output's lock. Nobody tidies up while another process still writes.
        with led(peers, out, states), united():
            last_good = path.with_name(f"{path.name}.last-good.safetensors")
            with _learned(ready, states.path, last_good, earlier) as learned:
                written = _write_weights(ready, learned, out.staging, earlier, peers)

                _give_back_shards(ready)

                def finish() -> Results:
                    with ready.alone() as able:
                        results, worse = _write_rest(
                            able, learned, written, journal, out.staging, path, rivals, earlier
                        )
                    if worse and wanted.if_worse == "fail":
                        refused = out.set_aside()
                        states.discard()
                        raise RefusedError(
                            worse,
                            hint=f"See {refused / 'report.html'}; {path} is as it was. Try another method or scale, or "
                            "accept such a merge with `if_worse: warn`.",
                        )
                    out.commit()
                    states.discard()
                    return results

                results = peers.first(finish)
    return Result(path, results)


def _give_back_shards(ready: Prepared) -> None:
    """What is left to do, the first process does alone."""
    if ready.bench is not None and ready.residency == SHARDED:
        ready.bench.give_back()
        give_back_freed_memory()


def _require_shareable(peers: Peers, settings: LearnSettings | None, residency: str | None) -> None:
    """RecipeError for what one process alone can learn."""
    if peers.size == 1 or settings is None:
        return
    if settings.hierarchy:
        raise RecipeError(
            f"method.hierarchy: {peers.size} processes learn one merge together, not a tree of them.",
            hint="Start it without torchrun, or leave hierarchy out.",
        )
    if "offload" in (residency, settings.residency):
        raise RecipeError(
            f"residency offload: {peers.size} processes learn with the model in their memory, whole or sharded.",
            hint="Choose residency sharded, or start it without torchrun.",
        )


@contextmanager
def _learned(ready: Prepared, states: Path, keep_at: Path, earlier: Earlier | None) -> Iterator[LearnedMerge | None]:
    settings = ready.learn_settings(ready.recipe)
    if settings is None:
        yield None
        return
    session = ready.session(states)
    if earlier:
        session = replace(session, given=earlier.given, key=f"{session.key}/{earlier.key}")
    with basis_of(ready, settings) as basis:
        yield learn_merge(session, get(ready.recipe.method.name), settings, basis, keep_at)


def _write_weights(
    ready: Prepared, learned: LearnedMerge | None, staging: Path, earlier: Earlier | None, peers: Peers
) -> Written:
    """The merged tensors, by all processes."""
    ready = _as_written(ready, earlier)
    chosen = ready.opened.choice
    choice = Choice(learned.merge, chosen.rules, chosen.by_name) if learned else chosen
    with measured(ready, choice) as complete:
        return write_weights(staging, ready, complete, peers)


def _as_written(ready: Prepared, earlier: Earlier | None) -> Prepared:
    """With the recipe that the directory is to hold."""
    return replace(ready, recipe=earlier.written) if earlier and earlier.written else ready


def _write_rest(
    ready: Prepared,
    learned: LearnedMerge | None,
    written: Written,
    journal: Journal,
    staging: Path,
    target: Path,
    rivals: Sequence[str],
    earlier: Earlier | None,
) -> tuple[Results, str | None]:
    """What the directory holds beside them, by the first process alone; and what is wrong with a bad merge."""
    ready = _as_written(ready, earlier)
    recipe = ready.recipe
    if written.assembled.geometry is not None:
        require_plausible(written.assembled.geometry, ready.match)
    write_model_files(staging, ready)
    for name, source in earlier.carried.items() if earlier else ():
        carry(source, staging / name)
    if learned:
        learned.learned.coefficients.save(staging / COEFFICIENTS)
        carry_groups(learned.groups, staging)
    worse = None
    if ready.bench is not None:
        _require_loadable(ready, staging, target)
        worse = worse_than_base(ready, staging)
    (staging / "recipe.yaml").write_text(recipe.to_yaml(relative_to=target), encoding="utf-8")
    size = sum(file.stat().st_size for file in staging.rglob("*.safetensors"))
    models, tasks = _score(ready, staging, learned, rivals)
    if ready.bench is not None:
        ready.bench.give_back()
        give_back_freed_memory()
    results = results_of(ready, journal, target, models, tasks, learned=learned, written=written, output_bytes=size)
    results = write_results(staging, ready, journal, target, results)
    for source in ready.opened.inputs:
        source.require_unchanged()
    tree, history = results.learning.tree if results.learning else None, earlier.history if earlier else ()
    write_lock(staging, recipe, ready.opened, written, tree=tree, history=history)
    emit("written", path=str(target), bytes=size)
    journal.write(staging / "run.jsonl")
    return results, worse


def _require_loadable(ready: Prepared, staging: Path, target: Path) -> None:
    """A model loads whole; an adapter fits its base."""
    if ready.recipe.output.save_as == "adapter":
        require_fitting(staging, ready.opened.base)
        return
    with Checkpoint.open(staging, label=str(target)) as written:
        require_loadable(written, whole=True)


def _score(
    ready: Prepared, staging: Path, learned: LearnedMerge | None, rivals: Sequence[str]
) -> tuple[list[ModelResult], dict[str, TaskResult]]:
    """Base, experts, the merge as it was written, and the rivals; nothing where no task has test rows."""
    if not any(rows.test for rows in ready.rows.values()):
        return [], {}
    scoring, name = ready.scoring(), ready.recipe.method.name
    with phase("scoring"):
        models = scoring.references()
        with ExitStack() as stack:
            merged = open_expert(staging, ready.opened.base, stack)
            models.append(scoring.model("merged", name, "merged", merged, seconds=learned.seconds if learned else None))
        models += [contend(ready, scoring, rival) for rival in rivals]
    return models, scoring.tasks()
