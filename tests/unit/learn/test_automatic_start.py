"""`init: auto`: Iso-C's merge where that is a start, else 0.3 each and at most 1/k."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from supermerge.checkpoint import Checkpoint, Match
from supermerge.learn import automatic_start
from supermerge.learn.basis import Basis
from supermerge.methods.settings import LearnSettings


def matched(k: int) -> Match:
    base = {"matrix": torch.eye(3), "bias": torch.zeros(3)}
    experts = {str(i): Checkpoint.open({name: t + i + 1 for name, t in base.items()}) for i in range(k)}
    return Match(Checkpoint.open(base), dict(experts), list(base), [], {}, {}, {}, [])


def of(k: int, match: Match | None, **settings: Any) -> Basis:
    return Basis.of(LearnSettings(**settings), [str(i) for i in range(k)], match)


def test_full_fine_tunes_start_at_iso_c() -> None:
    found = of(3, matched(3))
    assert found.names == ("0", "1", "2", "start:iso_c")
    assert found.init == {"0": 0.0, "1": 0.0, "2": 0.0, "start:iso_c": 0.5}


@pytest.mark.parametrize("settings", [{"on": "ties"}, {"hierarchy": {"group": 2}}, {"link": "softmax"}])
def test_elsewhere_every_expert_starts_alike(settings: dict[str, Any]) -> None:
    found = of(3, matched(3), **settings)
    assert set(found.init.values()) == {0.3}
    assert "start:iso_c" not in found.names


def test_a_single_expert_is_not_flattened() -> None:
    assert of(1, matched(1)).init == {"0": 0.3}


@pytest.mark.parametrize(("k", "value"), [(2, 0.3), (3, 0.3), (4, 0.25), (8, 0.125)])
def test_many_experts_start_at_their_mean(k: int, value: float) -> None:
    assert of(k, None).value == value


def test_a_large_model_is_not_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = sum(info.numel for info in matched(3).base.tensors.values())
    monkeypatch.setattr(automatic_start, "_MOST", numbers)
    assert "start:iso_c" in of(3, matched(3)).names
    monkeypatch.setattr(automatic_start, "_MOST", numbers - 1)
    assert set(of(3, matched(3)).init.values()) == {0.3}


def test_what_is_asked_for_is_taken() -> None:
    assert of(3, matched(3), init=0.2).init == dict.fromkeys("012", 0.2)
    assert of(3, matched(3), init="average").init == pytest.approx(dict.fromkeys("012", 1 / 3))
