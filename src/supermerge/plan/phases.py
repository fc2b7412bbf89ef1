"""The phases of a run: what each reads, holds and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from supermerge.assemble import Choice
from supermerge.checkpoint import Match
from supermerge.learn.basis import Basis
from supermerge.plan.activations import Activations
from supermerge.plan.learning import PlannedLearning, experts_bytes
from supermerge.plan.memory import PlannedMerge, report_bytes, statistics_bytes, stored_statistics_bytes
from supermerge.plan.rehearsal import survey_passes
from supermerge.plan.tree import TreeCost
from supermerge.recipe import Recipe

SIDE_BYTES = 10_000_000
"""Report, charts, card, logs and locks of one run, generously."""


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """One phase: bytes read from and written to disk, and the most memory held in it."""

    name: str
    what: str
    reads: int
    holds: int
    writes: int


@dataclass(frozen=True, slots=True)
class Phases:
    """Every phase of a run that may have `room` bytes of memory.

    It holds `held` until the report is written, of which `model` bytes are the tasks' model.
    """

    recipe: Recipe
    match: Match
    merge: PlannedMerge
    maker: PlannedMerge | None
    """What makes the vectors that are in no expert's file, where there are some."""
    learning: PlannedLearning | None
    tree: TreeCost | None
    active: Activations
    output_bytes: int
    held: int
    model: int
    room: int

    @property
    def threads(self) -> int:
        """How many threads every merge of the run has room for."""
        merges = [self.merge] if self.maker is None else [self.merge, self.maker]
        return min(merge.threads(self.room - self.held) for merge in merges)

    @property
    def peak(self) -> int:
        """The most that any phase holds."""
        return max(phase.holds for phase in self)

    def __iter__(self) -> Iterator[PlannedPhase]:
        """In their order."""
        match, learning, choice = self.match, self.learning, self.merge.choice
        base, experts = sum(info.nbytes for info in match.base.tensors.values()), experts_bytes(match, match.merged)
        scored = [name for name, task in self.recipe.tasks.items() if task.test is not None]
        if learning is not None:
            if self.maker is not None:
                yield self._deriving(self.maker, learning, base + experts)
            yield self._learning(learning, base)
        merging = self.held + self.merge.holds(self.room - self.held)
        if choice.default.scope == "model":
            passes = survey_passes(choice.default, len(match.experts))
            what = "once over all tensors" if passes == 1 else f"{passes} times over all tensors"
            yield PlannedPhase("survey", what, passes * (base + experts), merging, 0)
        makers = learning.basis.members if learning else []
        kinds = list(dict.fromkeys(kind for bound in (*choice.bounds, *makers) for kind in bound.kinds))
        if kinds:
            measuring = self.held + statistics_bytes(match, kinds) + self.active.learning
            written = len(match.experts) * stored_statistics_bytes(match, kinds)
            yield PlannedPhase("statistics", ", ".join(kinds), 2 * len(kinds) * experts, measuring, written)
        yield PlannedPhase("merge", f"{len(match.merged)} tensors", base + experts, merging, self.output_bytes)
        if scored:
            what = f"base, experts and the merged model on {len(scored)} tasks"
            reads, holds = base + experts + self.output_bytes, self.held + self.active.scoring
            yield PlannedPhase("evaluate", what, reads, holds, 0)
        report = report_bytes(pictures=bool(scored) or learning is not None)
        yield PlannedPhase("report", "page, charts, model card", 0, self.held - self.model + report, SIDE_BYTES)

    def _deriving(self, maker: PlannedMerge, learning: PlannedLearning, stored: int) -> PlannedPhase:
        """Make the vectors that are in no expert's file, in fp32."""
        basis, bound = learning.basis, maker.choice.default
        passes = 1 + (survey_passes(bound, len(self.match.experts)) if bound.scope == "model" else 0)
        made = [f"task vectors of {basis.on.method.name}"] if basis.on else []
        made += [f"the merge of {basis.start.method.name} to start from"] if basis.start else []
        holds = self.held + maker.holds(self.room - self.held)
        return PlannedPhase("derive", " and ".join(made), passes * stored, holds, learning.derived_bytes)

    def _learning(self, learning: PlannedLearning, base: int) -> PlannedPhase:
        what, reads, written = f"up to {learning.settings.steps} steps", learning.reads, 0
        if self.tree is not None:
            what, written = f"{what} for every group ({self.tree.groups})", self.tree.written
            reads = self.tree.groups * base + (reads - base) * self.tree.members // len(self.match.experts)
        holds = self.held + learning.holds + self.active.learning
        return PlannedPhase("learn", what, reads, holds, written)


def learned_merge(choice: Choice, basis: Basis) -> Choice:
    """What is merged in the end, before anything is learned: it makes the vectors again, piece by piece."""
    made = basis.rehearsal().bound(choice.default.method, lambda base, vectors, _: base + vectors[0])
    return replace(choice, default=made)


def maker_of(match: Match, basis: Basis) -> PlannedMerge | None:
    """What makes the vectors of `basis` that are in no expert's file, where there are some."""
    if not basis.derived:
        return None
    return PlannedMerge.of(match, Choice(basis.rehearsal().bound(basis.members[0].method, basis.derive)))
