"""Starting from a method's merge: the nearest coefficients, with numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermerge.checkpoint.memory import MemoryStore
from supermerge.errors import RecipeError
from supermerge.events import Event, subscribed
from supermerge.learn import Coefficients
from supermerge.learn.start import chosen_start, projected
from supermerge.methods import Bound
from supermerge.methods.settings import LearnSettings


class Two(nn.Module):
    """A matrix `a` [2, 2] and a vector `b` [2]."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(2, 2))
        self.b = nn.Parameter(torch.zeros(2))


BASE = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([5.0, 6.0])}


def start(taus: list[dict[str, list[Any]]], delta: dict[str, list[Any]], **settings: Any) -> Coefficients:
    """The start for a target that lies `delta` from the base."""

    def source(label: str, change: dict[str, list[Any]]) -> MemoryStore:
        return MemoryStore(label, {name: BASE[name] + torch.tensor(change[name]) for name in BASE})

    experts = {str(i): source(str(i), tau) for i, tau in enumerate(taus)}
    wanted = LearnSettings(**{"link": "identity", **settings})
    return projected(Two(), MemoryStore("base", BASE), experts, source("target", delta), wanted, "ties")


def close(found: Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


ONE = {"a": [[1.0, 0.0], [0.0, 0.0]], "b": [1.0, 1.0]}
OTHER = {"a": [[1.0, 1.0], [0.0, 0.0]], "b": [0.0, 2.0]}


def test_what_can_be_reached_is_met() -> None:
    # δ(a) = −1 τ₁ + 3 τ₂, δ(b) = 2 τ₁ + 0.5 τ₂.
    found = start([ONE, OTHER], {"a": [[2.0, 3.0], [0.0, 0.0]], "b": [2.0, 3.0]})
    close(found.effective("a"), [-1.0, 3.0])
    close(found.effective("b"), [2.0, 0.5])


def test_of_the_rest_the_nearest_remains() -> None:
    # What lies across the task vectors, δ(a)[1, 1] = 7, changes nothing.
    found = start([ONE, OTHER], {"a": [[2.0, 3.0], [0.0, 7.0]], "b": [2.0, 3.0]})
    close(found.effective("a"), [-1.0, 3.0])


def test_a_group_shares_its_coefficients() -> None:
    # ⟨τ, τ⟩ = 1 + 2 and ⟨τ, δ⟩ = 2 + 4 over both tensors.
    found = start([ONE], {"a": [[2.0, 0.0], [0.0, 0.0]], "b": [1.0, 3.0]}, granularity="model")
    close(found.w["model"], [2.0])


def test_rows_have_coefficients_of_their_own() -> None:
    tau = {"a": [[1.0, 1.0], [1.0, -1.0]], "b": [2.0, 4.0]}
    found = start([tau], {"a": [[0.3, 0.3], [0.4, 0.2]], "b": [1.0, 1.0]}, granularity="row")
    # (0.4 − 0.2) / 2 in the second row.
    close(found.effective("a"), [[0.3, 0.1]])
    close(found.effective("b"), [[0.5, 0.25]])


def test_where_experts_cannot_be_told_apart_they_start_equal() -> None:
    nothing = {"a": [[0.0, 0.0], [0.0, 0.0]], "b": [0.0, 0.0]}
    found = start([ONE, nothing, ONE], {"a": [[0.6, 0.0], [0.0, 0.0]], "b": [0.2, 0.2]})
    close(found.effective("a"), [0.3, 0.3, 0.3])
    close(found.effective("b"), [0.1, 0.1, 0.1])
    assert start([nothing, nothing], ONE).w["a"].tolist() == [0.0, 0.0]


def test_more_experts_than_numbers() -> None:
    # One number per row: τ = (1, 3) and δ = 2 give the common ½, and (1, 3) · c = 2 holds.
    taus = [{"a": [[0.0, 0.0], [0.0, 0.0]], "b": [1.0, 1.0]}, {"a": [[0.0, 0.0], [0.0, 0.0]], "b": [3.0, -1.0]}]
    found = start(taus, {"a": [[0.0, 0.0], [0.0, 0.0]], "b": [2.0, 1.0]}, granularity="row")
    # In the second row τ = (1, −1), δ = 1: no common coefficient, the shortest is (½, −½).
    close(found.effective("b"), [[0.5, 0.5], [0.5, -0.5]])


@pytest.mark.parametrize(
    ("link", "expected", "moved"),
    [("tanh", [0.5, 0.99], 2), ("clamp", [0.5, 1.0], 2), ("identity", [0.5, 1.5], 0), ("softmax", [0.25, 0.75], 4)],
)
def test_out_of_the_links_reach(link: str, expected: list[float], moved: int) -> None:
    # 0.5 τ₁ + 1.5 τ₂ in both tensors.
    delta = {"a": [[2.0, 1.5], [0.0, 0.0]], "b": [0.5, 3.5]}
    events: list[Event] = []
    with subscribed(events.append):
        found = start([ONE, OTHER], delta, link=link)
    close(found.effective("a"), expected)
    notes = [event.fields["message"] for event in events if event.kind == "note"]
    assert [note.split(" coefficients")[0] for note in notes] == ([f"init: {moved} of 4"] if moved else [])


def test_what_init_may_say() -> None:
    assert chosen_start(0.2, 4) == 0.2
    assert chosen_start("average", 4) == 0.25
    chosen = chosen_start("ties", 4)
    assert isinstance(chosen, Bound)
    assert chosen.method.name == "ties"


@pytest.mark.parametrize(
    ("init", "k", "message"),
    [
        ("tiess", 2, "expected a number, 'average' or a method, found 'tiess'"),
        ("adamerging", 2, "adamerging learns its coefficients itself"),
        ("slerp", 3, "3 experts given"),
    ],
)
def test_what_init_may_not_say(init: str, k: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        chosen_start(init, k)
