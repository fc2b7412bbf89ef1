"""A recipe made ready: checkpoints opened and matched, rows read, one model in memory where there are tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from supermerge.accelerator import reproducible
from supermerge.checkpoint import Match
from supermerge.distributed import current
from supermerge.errors import RecipeError
from supermerge.events import emit, phase
from supermerge.learn.session import Session
from supermerge.methods.settings import LearnSettings
from supermerge.plan.memory import OFFLOAD, SHARDED, device_of
from supermerge.recipe import Recipe
from supermerge.resolve import Opened, learn_settings, opened
from supermerge.run.environment import versions
from supermerge.run.rows import TaskRows, digest, read_task_rows
from supermerge.run.scoring import Scoring

if TYPE_CHECKING:
    from supermerge.statistics import Setup
    from supermerge.tasks.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Prepared:
    """`match` is what gets merged: with tasks, the backbone that they share; heads and poolers stay out of it."""

    recipe: Recipe
    opened: Opened
    match: Match
    rows: dict[str, TaskRows]
    bench: Workbench | None
    residency: str | None = None
    """Where the plan keeps what is learned from, where the recipe leaves it open."""
    scratch: Path | None = None
    """Where weights lie in a file, if they do."""

    def learn_settings(self, recipe: Recipe) -> LearnSettings | None:
        """How the method of `recipe` learns within this plan; None where it does not."""
        settings = learn_settings(recipe)
        if settings is None or self.residency is None or settings.residency != "auto":
            return settings
        return settings.model_copy(update={"residency": self.residency})

    @contextmanager
    def alone(self) -> Iterator[Prepared]:
        """What the first process can work with by itself: where the model is sharded, it has another one, in a file."""
        if self.residency != SHARDED or current().rank > 0:
            yield self
            return
        with ExitStack() as stack:
            yield replace(self, bench=_bench(self.recipe, self.opened, OFFLOAD, self.scratch, stack))

    def require_bench(self, why: str) -> Workbench:
        """The workbench; RecipeError where the recipe has no tasks."""
        if self.bench is None:
            raise RecipeError(f"{why} needs tasks, and the recipe has none.", hint="Add `tasks` to the recipe.")
        return self.bench

    def scoring(self) -> Scoring:
        """What scores models on the test rows."""
        return Scoring(self.require_bench("Scoring"), self.opened, self.rows)

    def statistics(self) -> Setup:
        """What statistics of the experts are measured on."""
        from supermerge.statistics import Setup

        rows = {task: rows.learning for task, rows in self.rows.items()}
        return Setup(self.bench, self.opened.base, self.match.experts, self.opened.experts, rows, self.recipe.seed)

    def session(self, directory: Path | None, after_search: Callable[[], object] | None = None) -> Session:
        """What learns coefficients; interrupted states are kept in `directory`."""
        return Session(
            self.require_bench(f"method {self.recipe.method.name}"),
            self.match,
            {task: rows.learning for task, rows in self.rows.items()},
            self.recipe.seed,
            directory,
            self._key() if directory else "",
            after_search,
        )

    def _key(self) -> str:
        """Identifies what a state belongs to: recipe (but for its output), checkpoints, rows and versions."""
        wishes = self.recipe.model_dump_json(exclude={"output"})
        checkpoints = [self.opened.base, *self.opened.experts.values()]
        identities = [(file.size, file.mtime_ns, file.head) for c in checkpoints for file in c.fingerprint()]
        return blake3(repr((wishes, identities, digest(self.rows), versions())).encode()).hexdigest()


@contextmanager
def prepared(
    recipe: Recipe,
    residency: str | None = None,
    *,
    with_rows: bool = True,
    scratch: Path | None = None,
    sources: Opened | None = None,
) -> Iterator[Prepared]:
    """Open and read everything that `recipe` names; every mistake in it surfaces here, before anything is written.

    `sources` are its checkpoints where they are open already. Without rows there is nothing to learn from or to score
    on, only something to merge. `residency` is the plan's; where it is `offload`, the model lies in a file without a
    name in `scratch`, and where it is `sharded`, all processes of this run hold it together.
    """
    with phase("preparing"):
        rows = read_task_rows(recipe.tasks) if with_rows else {}
    with ExitStack() as stack:
        sources = sources or stack.enter_context(opened(recipe))
        for note in sources.match.notes:
            emit("note", message=note)
        if not recipe.tasks:
            yield Prepared(recipe, sources, sources.match, rows, None)
            return
        bench = _bench(recipe, sources, residency, scratch, stack, weights=with_rows)
        shared, kept = set(bench.merged_names), set(bench.merged_names) | set(bench.copied_names)
        order = [name for name in sources.base.tensors if name in kept]
        merged = [name for name in order if name in shared and name in set(sources.match.merged)]
        copied = [name for name in order if name not in set(merged)]
        match = replace(sources.match, merged=merged, copied=copied)
        yield Prepared(recipe, sources, match, rows, bench, residency, scratch)


def _bench(
    recipe: Recipe,
    sources: Opened,
    residency: str | None,
    scratch: Path | None,
    stack: ExitStack,
    *,
    weights: bool = True,
) -> Workbench:
    """The workbench, with the model where `residency` says."""
    from supermerge.offload import Offload, computing
    from supermerge.tasks.workbench import Workbench

    offload = stack.enter_context(computing(Offload(scratch))) if residency == OFFLOAD else None
    with phase("building"):
        device = device_of(sources.match, residency)
        stack.enter_context(reproducible(device))
        return Workbench(
            sources.base,
            sources.experts,
            recipe.tasks,
            device=device,
            offload=offload,
            shard=residency == SHARDED,
            weights=weights,
        )
