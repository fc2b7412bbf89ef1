"""The tree of a hierarchical merge: who is merged with whom, and what fits no tree."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermerge.errors import RecipeError
from supermerge.learn.tree import groups, leaves, most_at_once, require_tasks, tree_of, written
from supermerge.methods.settings import Hierarchy

ABCDE = ("a", "b", "c", "d", "e")


def made(experts: int | tuple[str, ...] = ABCDE, **keys: Any) -> str:
    names = experts if isinstance(experts, tuple) else tuple(f"x{i}" for i in range(experts))
    return written(tree_of(Hierarchy.model_validate(keys), names))


def test_neighbours_are_merged_first_and_who_is_left_over_waits() -> None:
    assert made() == "(((a, b), (c, d)), e)"
    assert made(group=3) == "((a, b, c), (d, e))"
    assert made(("a",)) == "(a)"


def test_a_group_of_all_is_no_tree() -> None:
    flat = "(a, b, c, d, e)"
    assert made(group=5) == made(group=9) == flat
    assert made(groups=[["e", "d", "c", "b", "a"]]) == made(groups=["a", "b", ["c"], "d", "e"]) == flat


def test_groups_as_given_may_be_nested_and_have_the_recipe_s_order() -> None:
    assert made(groups=[["d", "a"], ["b", ["e", "c"]]]) == "((a, d), (b, (c, e)))"


def test_eleven_experts_are_ten_pairs_on_four_levels() -> None:
    tree = tree_of(Hierarchy(), tuple(f"x{i}" for i in range(11)))
    every = list(groups(tree))
    assert [len(group) for group in every] == [2] * 10
    assert every[-1] == tree
    assert written(every[0]) == "(x0, x1)"


@given(st.integers(1, 40), st.integers(2, 7))
def test_every_expert_is_in_the_tree_once_and_in_order(experts: int, size: int) -> None:
    names = tuple(f"x{i}" for i in range(experts))
    tree = tree_of(Hierarchy(group=size), names)
    assert leaves(tree) == list(names)
    assert max(len(group) for group in groups(tree)) <= size
    # On every level the merges of a group's members wait, and one is being written.
    assert most_at_once(tree) <= size * experts.bit_length() + 1


def test_merges_that_lie_on_the_disk_together() -> None:
    counts = {
        experts: most_at_once(tree_of(Hierarchy(), tuple(f"x{i}" for i in range(experts)))) for experts in (2, 4, 8, 16)
    }
    assert counts == {2: 0, 4: 2, 8: 4, 16: 5}


def test_the_most_alike_are_merged_first() -> None:
    near = {frozenset("ad"): 0.9, frozenset("be"): 0.8}

    def similarity(one: str, other: str) -> float:
        return near.get(frozenset((one, other)), 0.1)

    tree = tree_of(Hierarchy(by="similarity"), ABCDE, similarity)
    assert written(tree) == "(((a, d), (b, e)), c)"
    of_three = tree_of(Hierarchy(by="similarity", group=3), ("a", "b", "c", "d"), similarity)
    assert written(of_three) == "((a, b, d), c)"


def test_likeness_alone_decides_not_the_order() -> None:
    near = {frozenset("ab"): 0.9, frozenset("cd"): 0.8}
    for names in permutations("abcd"):
        tree = tree_of(Hierarchy(by="similarity"), names, lambda one, other: near.get(frozenset((one, other)), 0.0))
        assert {frozenset(leaves(group)) for group in groups(tree)} == {
            frozenset("ab"),
            frozenset("cd"),
            frozenset("abcd"),
        }


@pytest.mark.parametrize(
    ("given_groups", "says"),
    [
        ([["a", "b"], ["c", "d"]], "'e' is in no group"),
        ([["a", "b"], ["c", "d", "e", "f"]], "'f' is not among the experts"),
        ([["a", "b"], ["a", "c", "d", "e"]], "'a' is in two groups"),
        ([["a", 5], ["c", "d", "e"]], "found 5"),
        ([[], ["a", "b", "c", "d", "e"]], r"found \[\]"),
    ],
)
def test_groups_that_fit_no_recipe(given_groups: list[Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        made(groups=given_groups)


def test_a_group_without_a_task_has_nothing_to_learn_from() -> None:
    tree = tree_of(Hierarchy(), ("a", "b", "c", "d"))
    require_tasks(tree, {"one": "a", "other": "d"})
    with pytest.raises(RecipeError, match="the group of c and d has nothing to learn from"):
        require_tasks(tree, {"one": "a", "other": "b"})
