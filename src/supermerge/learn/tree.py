"""The tree of a hierarchical merge: which experts are merged first, and with whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from supermerge.errors import RecipeError
from supermerge.methods.settings import Hierarchy, LearnSettings

Tree = str | tuple["Tree", ...]
"""An expert's name, or the members of a group."""
Similarity = Callable[[str, str], float]


def tree_of(hierarchy: Hierarchy, experts: Sequence[str], similarity: Similarity | None = None) -> tuple[Tree, ...]:
    """The root: its members are merged last. One group of all experts is a merge without a hierarchy.

    With groups by similarity and no `similarity` given, the tree has the right shape, but not the right names. Raises
    RecipeError where `groups` are not lists in which every expert stands once.
    """
    if hierarchy.groups is not None:
        root = _given(hierarchy.groups)
        _require_each_once(root, experts)
    else:
        level: list[Tree] = list(experts)
        while len(level) > 1:
            near = similarity if hierarchy.by == "similarity" else None
            level = [_lone(group) for group in _grouped(level, hierarchy.group, near)]
        root = level[0]
    ordered = _ordered(root, experts)
    return ordered if isinstance(ordered, tuple) else (ordered,)


def leaves(tree: Tree) -> list[str]:
    """The experts below, in order."""
    return [tree] if isinstance(tree, str) else [leaf for member in tree for leaf in leaves(member)]


def label(tree: Tree) -> str:
    """A name for a group's merge."""
    return "+".join(leaves(tree))


def written(tree: Tree) -> str:
    """`((a, b), (c, d))`."""
    return tree if isinstance(tree, str) else f"({', '.join(map(written, tree))})"


def groups(tree: Tree) -> Iterator[tuple[Tree, ...]]:
    """Every group, in the order in which they are merged: members before the group that they make."""
    if isinstance(tree, tuple):
        for member in tree:
            yield from groups(member)
        yield tree


def most_at_once(tree: Tree) -> int:
    """How many groups' merges lie on the disk at the same time, until `tree` itself is merged.

    A group's merge is written while those of its members lie there; they are deleted then.
    """
    most = made = 0
    for member in tree if isinstance(tree, tuple) else ():
        if isinstance(member, tuple):
            own = sum(isinstance(inner, tuple) for inner in member)
            most = max(most, made + max(most_at_once(member), own + 1))
            made += 1
    return most


def require_tasks(tree: Tree, experts_of_tasks: Mapping[str, str]) -> None:
    """RecipeError where a group has nothing to learn from: no task belongs to one of its experts."""
    of_tasks = set(experts_of_tasks.values())
    for group in groups(tree):
        if not of_tasks & set(leaves(group)):
            raise RecipeError(
                f"hierarchy: the group of {' and '.join(leaves(group))} has nothing to learn from: no task has one of "
                "them as its expert.",
                hint="Group experts without a task with one that has a task: hierarchy.groups.",
            )


def require_own_vectors(settings: LearnSettings) -> None:
    """RecipeError where the settings ask for vectors of other methods: those of a group are none of the whole's."""
    if settings.on is not None or settings.start is not None:
        key, name = ("on", settings.on) if settings.on is not None else ("init", settings.start)
        raise RecipeError(
            f"hierarchy: groups are merged from the experts' own task vectors, and {key} asks for those of {name}.",
            hint=f"Leave out {key} or hierarchy.",
        )


def _given(group: Any) -> Tree:
    """What the recipe says, lists of one taken for their member."""
    if isinstance(group, str):
        return group
    if not isinstance(group, list) or not group:
        raise RecipeError(
            f"hierarchy.groups: expected lists of experts, such as [[a, b], [c, d]]; found {group!r}.",
            hint="Write the names of the experts, in lists that may be nested.",
        )
    return _lone(tuple(_given(member) for member in group))


def _ordered(tree: Tree, experts: Sequence[str]) -> Tree:
    """The same groups, their members in the order of the recipe's experts."""
    if isinstance(tree, str):
        return tree
    members = [_ordered(member, experts) for member in tree]
    return tuple(sorted(members, key=lambda member: experts.index(leaves(member)[0])))


def _lone(group: tuple[Tree, ...]) -> Tree:
    return group[0] if len(group) == 1 else group


def _require_each_once(tree: Tree, experts: Sequence[str]) -> None:
    found = leaves(tree)
    lost = [name for name in experts if name not in found]
    unknown = [name for name in found if name not in experts]
    twice = [name for name in experts if found.count(name) > 1]
    wrong = [("is in no group", lost), ("is not among the experts", unknown), ("is in two groups", twice)]
    for problem, names in wrong:
        if names:
            raise RecipeError(
                f"hierarchy.groups: {names[0]!r} {problem}.",
                hint=f"Every expert belongs into one group: {', '.join(experts)}.",
            )


def _grouped(level: Sequence[Tree], size: int, similarity: Similarity | None) -> list[tuple[Tree, ...]]:
    """One level's groups of up to `size`: neighbours, or those that are most alike, the closest pair first."""
    if similarity is None:
        return [tuple(level[start : start + size]) for start in range(0, len(level), size)]
    rest = list(range(len(level)))
    found: list[list[int]] = []
    near = {(i, j): _mean_similarity(level[i], level[j], similarity) for i, j in combinations(range(len(level)), 2)}

    while len(rest) > size:
        group = list(max(combinations(rest, 2), key=lambda pair: near[pair]))
        while len(group) < size:
            together = {i: sum(near[min(i, j), max(i, j)] for j in group) for i in rest if i not in group}
            group.append(max(together, key=lambda i: together[i]))
        rest = [i for i in rest if i not in group]
        found.append(sorted(group))
    every = sorted([*found, rest] if rest else found, key=lambda group: group[0])
    return [tuple(level[i] for i in group) for group in every]


def _mean_similarity(one: Tree, other: Tree, similarity: Similarity) -> float:
    pairs = [(a, b) for a in leaves(one) for b in leaves(other)]
    return sum(similarity(a, b) for a, b in pairs) / len(pairs)
