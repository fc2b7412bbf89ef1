"""A learned merge of a recipe: early stopping on held-back rows of the tasks, then refitting on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supermerge.checkpoint import Match, TensorSource
from supermerge.errors import DataError, RecipeError
from supermerge.events import phase
from supermerge.learn.balance import Balance, worst_first
from supermerge.learn.basis import Basis
from supermerge.learn.batches import Batches, Material, Teachers
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.derived import sources
from supermerge.learn.given_start import Given, given_start
from supermerge.learn.learn import Learned, learn
from supermerge.learn.loop import EarlyStopping, Saving
from supermerge.learn.objectives import OBJECTIVES, weighted_objectives
from supermerge.learn.schedules import schedule
from supermerge.methods.settings import LearnSettings
from supermerge.tasks.rows import Row
from supermerge.tasks.splits import split_held_back

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


@dataclass(frozen=True, slots=True)
class LearningRows:
    """What one task may learn from: labelled validation rows, and unlabelled ones. Never test rows."""

    labelled: Sequence[Row]
    unlabelled: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Session:
    """Everything a learned merge needs besides its settings and its basis."""

    bench: Workbench
    match: Match
    rows: Mapping[str, LearningRows]
    seed: int
    directory: Path | None = None
    """Where states are kept between interruptions; None keeps none."""
    key: str = ""
    """Identifies recipe, checkpoints and data, so that no other run's state is resumed."""
    after_search: Callable[[], object] | None = None
    """Called while the workbench has the best of the search, which has not learned from what is held back."""
    given: Mapping[str, Given] = field(default_factory=dict)
    """Where vectors start, instead of as the basis says."""
    originals: Mapping[str, TensorSource] | None = None
    """The experts that teach, where those of `match` are merges of them."""

    def learn(self, settings: LearnSettings, basis: Basis) -> Learned:
        """Learn the coefficients: with held-back rows first the number of steps, then (`refit`) from all rows.

        Raises DataError where a task lacks the rows that the loss asks for; Diverged.
        """
        weights = weighted_objectives(settings.loss)
        self.require_rows(weights)
        searches = settings.patience is not None and any(OBJECTIVES[name].target for name in weights)
        kept, held_back = self._split(searches)
        everything = _joined(kept, held_back)
        teachers = self._teach(everything.unlabelled, [name for name in weights if OBJECTIVES[name].taught])

        def batches(material: Material) -> Batches:
            return Batches(self.bench, weights, material, teachers, self.seed)

        with sources(basis, self.match, self.seed, self.directory, self.key) as vectors:
            init = self._init(settings, basis, vectors)

            def run(name: str, steps: int, material: Material, held_back: Material | None = None) -> Learned:
                steps_of = batches(material)
                balance = worst_first(self._of_experts(steps_of)) if settings.balance == "worst" else None
                return self._run(settings, vectors, init, name, steps, steps_of, held_back, balance)

            if not any(held_back.of(task, name) for task in self.rows for name in weights):
                return run("learning", settings.steps, kept)
            found = run("searching", settings.steps, kept, held_back)
            if self.after_search is not None:
                self.after_search()
            if not settings.refit or found.best_step == 0:
                return found
            refitted = run("refitting", found.best_step, everything)
            # The search tells more than the refit: it has the held-back losses.
            refitted.history = found.history
            return refitted

    def _init(
        self, settings: LearnSettings, basis: Basis, vectors: Mapping[str, TensorSource]
    ) -> Mapping[str, float] | Coefficients:
        if not self.given:
            return basis.init
        bound = {name: self.bench.bind(source) for name, source in vectors.items()}
        start = {**basis.init, **self.given}
        return given_start(self.bench.model, self.bench.bind(self.match.base), bound, settings, start)

    def held_back_loss(self, batches: Batches, held_back: Material) -> float:
        """What early stopping watches: the objectives on the examples held back."""
        return batches.measure(held_back)

    def _run(
        self,
        settings: LearnSettings,
        vectors: Mapping[str, TensorSource],
        init: Mapping[str, float] | Coefficients,
        name: str,
        steps: int,
        batches: Batches,
        held_back: Material | None,
        balance: Balance | None,
    ) -> Learned:
        stopping = saving = None
        if held_back is not None:
            stopping = EarlyStopping(
                lambda _: self.held_back_loss(batches, held_back), every=settings.every, patience=settings.patience
            )
        if self.directory is not None:
            saving = Saving(self.directory / f"{name}.safetensors", f"{self.key}/{name}", settings.save_every)
        with phase(name, steps=steps):
            return learn(
                self.bench.model,
                self.bench.bind(self.match.base),
                {vector: self.bench.bind(source) for vector, source in vectors.items()},
                batches,
                batches.loss,
                steps=steps,
                lr=settings.lr,
                link=settings.link,
                granularity=settings.granularity,
                # Whether the model is sharded is the workbench's matter; task vectors are then streamed.
                residency="disk" if settings.residency == "sharded" else settings.residency,
                init=init,
                schedule=schedule(settings.schedule, settings.steps),
                clip=settings.clip,
                precision=settings.precision,
                balance=balance,
                early_stopping=stopping,
                saving=saving,
            )

    def require_rows(self, weights: Mapping[str, float]) -> None:
        """DataError where a task lacks the rows that an objective of `weights` learns from."""
        for objective in weights:
            for task, rows in self.rows.items():
                if OBJECTIVES[objective].labelled and not rows.labelled:
                    self._refuse(task, objective, "labelled", "validation")
                if not OBJECTIVES[objective].labelled and not (
                    rows.unlabelled or (OBJECTIVES[objective].taught and rows.labelled)
                ):
                    self._refuse(task, objective, "unlabelled", "unlabelled")

    def _refuse(self, task: str, objective: str, kind: str, key: str) -> None:
        raise DataError(
            f"tasks.{task}: loss {objective} needs {kind} examples, and there are none.",
            hint=f"Give tasks.{task}.{key}, or choose another loss.",
        )

    def _split(self, searches: bool) -> tuple[Material, Material]:
        """Encoded rows of every task: (to learn from, held back).

        A task without unlabelled rows gives the inputs of its labelled ones to teachers.
        """
        kept, held_back = Material({}, {}), Material({}, {})
        for task, rows in self.rows.items():
            fraction = self.bench.specs[task].held_back if searches else 0.0
            kept.labelled[task], held_back.labelled[task] = self._parts(task, rows.labelled, fraction)
            taught = rows.unlabelled or rows.labelled
            kept.unlabelled[task], held_back.unlabelled[task] = self._parts(task, taught, fraction)
        return kept, held_back

    def _parts(self, task: str, rows: Sequence[Row], fraction: float) -> tuple[list[Example], list[Example]]:
        """Encoded rows: (to learn from, held back)."""
        rest, aside = split_held_back(rows, fraction if rows else 0.0, self.seed)
        return self.bench.encode(task, rest), self.bench.encode(task, aside)

    def _teach(self, taught: Mapping[str, Sequence[Example]], objectives: Sequence[str]) -> Teachers:
        """What every example's own expert makes of it; each expert is loaded once."""
        teachers: dict[str, dict[int, Tensor]] = {name: {} for name in objectives}
        if not objectives:
            return teachers
        give = {"distill": self.bench.logits, "features": self.bench.features}
        with phase("teaching"), torch.no_grad():
            for task, examples in taught.items():
                spec = self.bench.specs[task]
                if spec.is_generation:
                    raise RecipeError(
                        f"tasks.{task}: {objectives[0]} of {spec.type} tasks would keep numbers for every token.",
                        hint="Use loss cross_entropy for this task's recipe.",
                    )
                self.bench.load(self._experts[spec.expert])
                for start in range(0, len(examples), spec.batch_size):
                    part = examples[start : start + spec.batch_size]
                    batch = self.bench.batch(task, part)
                    for name in objectives:
                        given = give[name](task, batch)
                        teachers[name].update({id(example): row for example, row in zip(part, given, strict=True)})
        return teachers

    @property
    def _experts(self) -> Mapping[str, TensorSource]:
        """The experts that the tasks name."""
        return self.originals or self.match.experts

    def _of_experts(self, batches: Batches) -> dict[str, float]:
        """The loss of every task with the weights of its own expert."""
        found: dict[str, float] = {}
        with phase("teaching"), torch.no_grad():
            for task in self.rows:
                self.bench.load(self._experts[self.bench.specs[task].expert])
                found[task] = batches.loss_of(task)
        return found


def _joined(one: Material, other: Material) -> Material:
    """The examples of both."""
    return Material(
        {task: [*one.labelled[task], *other.labelled[task]] for task in one.labelled},
        {task: [*one.unlabelled[task], *other.unlabelled[task]] for task in one.unlabelled},
    )
