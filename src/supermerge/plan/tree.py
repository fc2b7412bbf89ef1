"""What a tree of groups costs, from its shape alone."""

from __future__ import annotations

from dataclasses import dataclass

from supermerge.checkpoint import Match
from supermerge.learn.tree import groups, most_at_once, require_own_vectors, require_tasks, tree_of
from supermerge.methods.settings import Hierarchy, LearnSettings
from supermerge.recipe import Recipe


@dataclass(frozen=True, slots=True)
class TreeCost:
    """`groups` are learned one after the other, with `members` members together.

    Their merges take `written` bytes, at most `at_once` of them at the same time.
    """

    groups: int
    members: int
    written: int
    at_once: int


def tree_cost(settings: LearnSettings | None, recipe: Recipe, match: Match) -> TreeCost | None:
    """The cost of the recipe's hierarchy, where it has one; RecipeError where it does not fit experts and tasks."""
    hierarchy: Hierarchy | None = settings.hierarchy if settings else None
    if settings is None or hierarchy is None:
        return None
    require_own_vectors(settings)
    tree = tree_of(hierarchy, list(recipe.experts))
    if hierarchy.by == "order":  # by similarity, the groups are not known before the task vectors are read
        require_tasks(tree, {name: task.expert for name, task in recipe.tasks.items()})
    every = list(groups(tree))
    merge = sum(match.base.tensors[name].numel * 4 for name in match.merged)
    written = (len(every) - 1) * merge
    at_once = written if hierarchy.keep else merge * most_at_once(tree)
    return TreeCost(len(every), sum(map(len, every)), written, at_once)
