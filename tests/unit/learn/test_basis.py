"""The vectors that a learned merge combines: a start that is exactly another method's merge, processed task vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from supermerge.assemble import merge
from supermerge.checkpoint import Checkpoint, Match
from supermerge.errors import RecipeError, UsageError
from supermerge.learn import Coefficients, derived, learn
from supermerge.learn.basis import Basis
from supermerge.learn.derived import sources
from supermerge.methods import get, names
from supermerge.methods.settings import LearnSettings

from .toy import toy_batches, toy_experts, toy_loss, toy_model

SHAPES = {"layers.0.weight": (6, 4), "layers.1.weight": (4, 9), "norm.bias": (5,), "conv": (3, 2, 2)}


def models(k: int = 3) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    draw = torch.Generator().manual_seed(3)
    base = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    experts = {
        f"expert {i}": {name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in base.items()}
        for i in range(k)
    }
    return base, experts


def matched(base: dict[str, Tensor], experts: dict[str, dict[str, Tensor]]) -> Match:
    opened = {name: Checkpoint.open(tensors) for name, tensors in experts.items()}
    return Match(Checkpoint.open(base), dict(opened), list(base), [], {}, {}, {}, [])


def made(directory: Path | None = None, key: str = "", **settings: Any) -> dict[str, dict[str, Tensor]]:
    """θp + v of every vector, by name."""
    base, experts = models()
    basis = Basis.of(LearnSettings(**settings), list(experts))
    with sources(basis, matched(base, experts), 0, directory, key) as found:
        return {name: {tensor: source.read(tensor).clone() for tensor in base} for name, source in found.items()}


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


def sum_of(base: dict[str, Tensor], vectors: list[dict[str, Tensor]], c: float) -> dict[str, Tensor]:
    return {name: tensor + c * sum(vector[name] - tensor for vector in vectors) for name, tensor in base.items()}


def test_with_a_number_it_is_the_experts() -> None:
    base, experts = models()
    basis = Basis.of(LearnSettings(init=0.2), list(experts))
    assert (basis.names, basis.derived, basis.init) == (tuple(experts), (), dict.fromkeys(experts, 0.2))
    assert Basis.of(LearnSettings(init="average"), list(experts)).init == pytest.approx(dict.fromkeys(experts, 1 / 3))
    match = matched(base, experts)
    with sources(basis, match, 0, None, "") as found:
        assert found is match.experts


@pytest.mark.parametrize("init", ["task_arithmetic", "iso_c", "tsv_m", "ties", "dare", "breadcrumbs", "pcb"])
def test_a_start_is_the_methods_merge(init: str) -> None:
    base, experts = models()
    found = made(init=init)
    start = f"start:{get(init).name}"
    assert list(found) == [*experts, start]
    close(sum_of(base, [found[start]], 0.5), merge(base, experts, init))
    basis = Basis.of(LearnSettings(init=init), list(experts))
    assert basis.init == {**dict.fromkeys(experts, 0.0), start: 0.5}
    for name in experts:
        close(found[name], experts[name])


@pytest.mark.parametrize("on", ["ties", "tsv_m", "dare", "breadcrumbs"])
def test_processed_task_vectors_add_up_to_the_methods_merge(on: str) -> None:
    base, experts = models()
    method = get(on)
    summing = {"merge": "sum"} if "merge" in method.parameters.model_fields else {}
    found = made(on=on)
    assert list(found) == list(experts)
    close(sum_of(base, list(found.values()), 0.3), merge(base, experts, on, scale=0.3, **summing))


@pytest.mark.parametrize("init", ["iso_c", "linear", "ties", "breadcrumbs_ties", "pcb"])
@pytest.mark.parametrize("on", ["ties", "tsv_m", "dare", "della", "breadcrumbs"])
def test_both_together_are_each_as_alone(on: str, init: str) -> None:
    both, processed, started = made(on=on, init=init), made(on=on), made(init=init)
    for name, tensors in both.items():
        close(tensors, (started if name.startswith("start:") else processed)[name])


def test_what_was_made_is_kept_for_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "derived-ofanotherrun.part").mkdir()
    first = made(tmp_path, "this run", on="ties", init="iso_c")
    (kept,) = tmp_path.iterdir()
    assert len(list(kept.glob("*/*.safetensors"))) == 4
    with monkeypatch.context() as patch:
        patch.setattr(derived, "several_into", None)
        again = made(tmp_path, "this run", on="ties", init="iso_c")
    assert all(torch.equal(again[name][tensor], first[name][tensor]) for name in first for tensor in SHAPES)
    made(tmp_path, "another run", init="ties")
    (other,) = tmp_path.iterdir()
    assert other != kept


@pytest.mark.parametrize(
    ("settings", "k", "message"),
    [
        ({"init": "tiess"}, 2, "expected a number, 'auto', 'average' or a method, found 'tiess'"),
        ({"init": "adamerging"}, 2, "adamerging learns its coefficients itself"),
        ({"init": "slerp"}, 3, "3 experts given"),
        (
            {"init": "iso_c", "link": "softmax"},
            2,
            "iso_c starts at 0.5 and the experts at 0, which link softmax",
        ),
        ({"on": "tiess"}, 2, "unknown method 'tiess'. Did you mean 'ties'"),
        ({"on": "iso_c"}, 2, "iso_c merges task vectors, and makes nothing of every single one"),
        ({"on": "supermerge"}, 2, "supermerge merges task vectors, and makes nothing of every single one"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], k: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Basis.of(LearnSettings(**settings), [str(i) for i in range(k)])


def test_the_hint_names_the_methods_that_can() -> None:
    with pytest.raises(RecipeError) as refused:
        Basis.of(LearnSettings(on="iso_c"), ["a", "b"])
    able = [name for name in names() if get(name).process]
    assert {"ties", "tsv_m", "dare_linear"} <= set(able)
    assert refused.value.hint is not None
    assert f"`init: iso_c`; methods for `on`: {', '.join(able)}." in refused.value.hint


def test_every_expert_may_have_a_start_of_its_own() -> None:
    base = toy_model().state_dict()
    experts = toy_experts(base)
    model = toy_model()
    starts = {"expert0": 0.0, "expert1": 0.5}
    learned = learn(model, base, experts, toy_batches(), toy_loss, steps=0, lr=0.1, init=starts, granularity="row")
    for name in learned.coefficients.groups:
        c = learned.coefficients.effective(name)
        torch.testing.assert_close(c, torch.tensor([[0.0], [0.5]]).expand_as(c), rtol=0, atol=1e-7)
    halfway = base["shared.weight"] + 0.5 * (experts["expert1"]["shared.weight"] - base["shared.weight"])
    torch.testing.assert_close(learned.state_dict()["shared.weight"], halfway, rtol=0, atol=1e-6)


def test_starts_for_other_experts_are_refused() -> None:
    base = toy_model().state_dict()
    with pytest.raises(UsageError, match=r"starts are given for \['x'\], the experts are \['expert0', 'expert1'\]"):
        learn(toy_model(), base, toy_experts(base), toy_batches(), toy_loss, steps=0, lr=0.1, init={"x": 0.1})


def test_a_start_out_of_the_links_reach_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"a coefficient of -0\.2 cannot be reached with link 'clamp'"):
        Coefficients.start(["a"], {"w": (2, 2)}, link="clamp", granularity="tensor", value={"a": -0.2})
