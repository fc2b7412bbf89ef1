"""A hierarchical merge: experts are merged in groups, then the merges of the groups, up to one model.

A group's merge is θg = θp + Σᵢ c(i) τ(i), its task vector θg − θp; the next level learns a coefficient for it on the
union of its experts' data. So an expert's effective coefficient is the product of the coefficients on its way up, and
the final model is written from the experts themselves, in one go. Each group's merge lies on the disk, in fp32, while
its level needs it: every step reads as many task vectors as the group has members, not one per expert.

The lowest level starts as `init` says. Above, a group starts at one over the members beside it and itself, their mean:
the experts in it have coefficients that suit fewer experts than there are now. A start of 0.3 on each of four levels
would be a merge with 0.3⁴ = 0.008; at 0.9 eight experts, learned in pairs, add up to more than the model can take
(docs/benchmarks.md).

Source: SuperMerge, arXiv 2412.10416, whose group size is 2 by the memory it reports. Departs from the paper: the starts
and the order are ours, as the paper's are not known; the experts' files are streamed, so that memory is that of flat
learning.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from blake3 import blake3

from supermerge.assemble import Nowhere, merge_into
from supermerge.checkpoint import Checkpoint, TensorSource
from supermerge.events import emit, phase
from supermerge.learn.basis import Basis
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.file_merge import file_coefficients, merge_of, write_merge
from supermerge.learn.given_start import Given
from supermerge.learn.learn import Learned
from supermerge.learn.links import link as find_link
from supermerge.learn.session import Session
from supermerge.learn.tree import Similarity, Tree, groups, label, leaves, require_own_vectors, require_tasks, tree_of
from supermerge.methods import Method
from supermerge.methods.settings import Hierarchy, LearnSettings

_COEFFICIENTS = "coefficients.safetensors"


@dataclass(frozen=True, slots=True)
class Climbed:
    """What learning in a tree gives: the coefficients of the experts themselves, with the last level's history.

    `kept` are the directories of the groups' merges by the groups' names, where the recipe keeps them.
    """

    learned: Learned
    tree: tuple[Tree, ...]
    kept: Mapping[str, Path]


def learn_tree(session: Session, method: Method, settings: LearnSettings, hierarchy: Hierarchy) -> Climbed:
    """Learn level by level. Without a directory in `session` nothing is kept, and nothing can be resumed.

    Raises RecipeError for groups that do not fit the experts and tasks; and as `Session.learn`.
    """
    require_own_vectors(settings)
    near = _similarity(session) if hierarchy.by == "similarity" else None
    tree = tree_of(hierarchy, list(session.match.experts), near)
    require_tasks(tree, {task: session.bench.specs[task].expert for task in session.rows})
    with ExitStack() as stack:
        directory = session.directory or Path(stack.enter_context(TemporaryDirectory(prefix="supermerge-")))
        climb = _Climb(session, method, settings, directory, tree, hierarchy.keep)
        learned = climb.learn(tree, session.directory, session.key)
    kept = climb.kept() if hierarchy.keep and session.directory is not None else {}
    return Climbed(learned, tree, kept)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a group: its weights, and the coefficients in them where it is itself a merge."""

    source: TensorSource
    inside: Coefficients | None = None


@dataclass(frozen=True, slots=True)
class _Climb:
    session: Session
    method: Method
    settings: LearnSettings
    directory: Path
    tree: tuple[Tree, ...]
    keep: bool

    def learn(self, group: tuple[Tree, ...], states: Path | None, key: str) -> Learned:
        """The coefficients of the experts in `group`, after those of the groups in it."""
        every, last = list(groups(self.tree)), group == self.tree
        # What is held back must say something on every level above: only the last one learns from it in the end.
        settings = self.settings if last else self.settings.model_copy(update={"refit": False})
        with ExitStack() as files:
            members = {label(member): self._member(member, files) for member in group}
            if len(every) > 1:
                emit("note", message=f"Group {every.index(group) + 1} of {len(every)}: {', '.join(members)}")
            own, specs = set(leaves(group)), self.session.bench.specs
            part = replace(
                self.session,
                match=replace(self.session.match, experts={name: one.source for name, one in members.items()}),
                originals=self.session.match.experts,
                rows={task: rows for task, rows in self.session.rows.items() if specs[task].expert in own},
                directory=states,
                key=key,
                given=self._start(group),
                after_search=self.session.after_search if last else None,
            )
            learned = part.learn(settings, Basis.of(settings, list(members)))
        insides = [member.inside for member in members.values()]
        learned.coefficients = combined(learned.coefficients, insides, list(self.session.match.experts))
        return learned

    def kept(self) -> dict[str, Path]:
        """The directories of the groups' merges."""
        return {label(group): self._place(group) for group in groups(self.tree) if group != self.tree}

    def _member(self, member: Tree, files: ExitStack) -> _Member:
        if isinstance(member, str):
            return _Member(self.session.match.experts[member])
        place = self._place(member)
        if not (place / _COEFFICIENTS).exists():
            self._make(member, place)
        source = files.enter_context(Checkpoint.open(place, label=label(member)))
        return _Member(source, Coefficients.load(place / _COEFFICIENTS))

    def _make(self, group: tuple[Tree, ...], place: Path) -> None:
        """Learn a group's coefficients and write its merge; the coefficients, written last, say that it is whole."""
        states = place.with_name(f"{place.name}.state")
        learned = self.learn(group, states, f"{self.session.key}/{label(group)}")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        session, found = self.session, learned.coefficients
        match = replace(session.match, experts={name: session.match.experts[name] for name in found.experts})
        coefficients = file_coefficients(found, session.bench.binding, match.base)
        write_merge(merge_of(self.method, Basis(found.experts), coefficients), match, place, session.seed)
        found.save(place / _COEFFICIENTS)
        shutil.rmtree(states, ignore_errors=True)
        if not self.keep:
            for member in group:
                if isinstance(member, tuple):
                    shutil.rmtree(self._place(member))

    def _place(self, group: tuple[Tree, ...]) -> Path:
        """Where a group's merge lies: named after the run and the tree, so that no other run's is taken for it."""
        return self.directory / blake3(f"{self.session.key}/{group}".encode()).hexdigest()[:16]

    def _start(self, group: tuple[Tree, ...]) -> dict[str, Given]:
        """Where the members of a group start; nothing for one of experts alone, which starts as `init` says."""
        if all(isinstance(member, str) for member in group):
            return {}
        own = Basis.of(self.settings, leaves(group)).value
        return {label(member): own if isinstance(member, str) else 1 / len(group) for member in group}


def combined(found: Coefficients, insides: Sequence[Coefficients | None], experts: Sequence[str]) -> Coefficients:
    """The experts' effective coefficients: a member's, times those inside it; in the order of `experts`."""
    if all(one is None for one in insides):
        return found
    members = zip(found.experts, insides, strict=True)
    names = [name for member, one in members for name in ([member] if one is None else one.experts)]
    order = sorted(range(len(names)), key=lambda i: experts.index(names[i]))
    outer = find_link(found.link).apply
    w: dict[str, torch.Tensor] = {}
    for group, numbers in found.w.items():
        rows = [
            c[None] if one is None else c[None] * find_link(one.link).apply(one.w[group])
            for c, one in zip(outer(numbers), insides, strict=True)
        ]
        w[group] = torch.cat(rows)[order]
    return Coefficients(tuple(names[i] for i in order), "identity", found.granularity, found.groups, w)


def _similarity(session: Session) -> Similarity:
    """The cosine of two experts' task vectors, over all tensors that the tasks share."""
    match = session.match
    with phase("comparing"):
        geometry = merge_into(Nowhere(), "linear", match, names=match.merged, geometry=True).geometry
    if geometry is None:
        return lambda one, other: 0.0
    place = {name: i for i, name in enumerate(geometry.experts)}
    cosines = geometry.cosines
    return lambda one, other: cosines[place[one]][place[other]]
