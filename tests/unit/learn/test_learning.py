"""`supermerge.learn` around the engine: residency, interruptions, early stopping, divergence, what it leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parent))

from toy import Toy, state, toy_batch, toy_batches, toy_experts, toy_loss, toy_model

from supermerge.checkpoint import save_tensors
from supermerge.errors import CheckpointError, DataError, UsageError
from supermerge.learn import Coefficients, Diverged, EarlyStopping, Learned, Saving, learn


def _learn(batches: Any = None, model: Toy | None = None, **options: Any) -> Learned:
    model = model or toy_model()
    base = state(toy_model())
    options = {"steps": 12, "lr": 0.05, **options}
    return learn(model, base, toy_experts(base), batches or toy_batches(), toy_loss, **options)


def _bytes(learned: Learned) -> dict[str, bytes]:
    tensors = {**learned.coefficients.w, **learned.state_dict()}
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("granularity", ["tensor", "row", "layer"])
def test_disk_and_memory_give_the_same_bytes(tmp_path: Path, granularity: str) -> None:
    base = state(toy_model())
    paths = {}
    for name, tensors in {"base": base, **toy_experts(base)}.items():
        paths[name] = tmp_path / f"{name}.safetensors"
        save_tensors(paths[name], tensors)
    experts = {name: path for name, path in paths.items() if name != "base"}
    disk, memory = (
        learn(
            toy_model(),
            paths["base"],
            experts,
            toy_batches(),
            toy_loss,
            steps=6,
            lr=0.05,
            granularity=granularity,
            residency=residency,
        )
        for residency in ("disk", "memory")
    )
    assert _bytes(disk) == _bytes(memory)


@pytest.mark.parametrize(("granularity", "readings"), [("tensor", 1), ("row", 1), ("module", 2), ("model", 2)])
def test_task_vectors_are_read_once_per_step_where_that_is_enough(granularity: str, readings: int) -> None:
    model = toy_model()
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    learned = _learn(model=model, granularity=granularity, steps=5)
    assert learned.bytes_read == (5 * readings * parameters, 5 * readings * 2 * parameters)


class _InterruptedError(Exception):
    pass


def _interrupted_at(step: int) -> Iterator[Any]:
    yield from islice(toy_batches(), step)
    raise _InterruptedError


@pytest.mark.parametrize("at", [0, 1, 7])
@pytest.mark.parametrize("granularity", ["tensor", "module"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path, at: int, granularity: str) -> None:
    whole = _learn(granularity=granularity)
    saving = Saving(tmp_path / "state.safetensors", key="this run")
    with pytest.raises(_InterruptedError):
        _learn(_interrupted_at(at), granularity=granularity, saving=saving)
    resumed = _learn(granularity=granularity, saving=saving)
    assert _bytes(resumed) == _bytes(whole)
    assert resumed.history == whole.history


def test_a_step_interrupted_in_its_backward_pass_is_taken_back(tmp_path: Path) -> None:
    calls = 0

    def stumbling(model: nn.Module, task: str, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = toy_loss(model, task, batch)
        if calls == 8:  # the second task of step 3: some tensors have moved when the hook of this one raises
            loss.register_hook(lambda _: (_ for _ in ()).throw(_InterruptedError()))
        return loss

    base = state(toy_model())
    saving = Saving(tmp_path / "state.safetensors", key="this run")
    with pytest.raises(_InterruptedError):
        learn(toy_model(), base, toy_experts(base), toy_batches(), stumbling, steps=12, lr=0.05, saving=saving)
    assert _bytes(_learn(saving=saving)) == _bytes(_learn())


def test_the_state_of_another_run_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(_InterruptedError):
        _learn(_interrupted_at(5), saving=Saving(path, key="another run"), lr=0.5)
    assert _bytes(_learn(saving=Saving(path, key="this run"))) == _bytes(_learn())


def test_early_stopping_returns_the_best_and_waits_no_longer_than_its_patience() -> None:
    values = iter([5.0, 3.0, 4.0, 4.0, 4.0, 1.0])
    seen: list[dict[str, torch.Tensor]] = []

    def held_back(model: nn.Module) -> float:
        seen.append(state(model))
        return next(values)

    learned = _learn(early_stopping=EarlyStopping(held_back, patience=3))
    assert learned.best_step == 1
    assert [record.held_back for record in learned.history] == [5.0, 3.0, 4.0, 4.0, 4.0]
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in learned.state_dict().items())


def test_divergence_keeps_the_last_good_coefficients() -> None:
    def exploding(model: nn.Module, task: str, batch: Any) -> torch.Tensor:
        loss = toy_loss(model, task, batch)
        return loss * float("nan") if len(steps) > 3 and task == "right" else loss

    steps: list[int] = []
    good: list[Coefficients] = []

    def counted() -> Iterator[Any]:
        for batch in toy_batches():
            steps.append(1)
            yield batch

    model, base = toy_model(), state(toy_model())
    with pytest.raises(Diverged, match=r"loss of step 3 \(right\) is nan") as caught:
        learn(model, base, toy_experts(base), counted(), exploding, steps=12, lr=0.05)
    good.append(caught.value.coefficients)
    expected = _learn(steps=2).coefficients
    assert caught.value.exit_code == 7
    assert all(torch.equal(w, expected.w[group]) for group, w in good[0].w.items())
    merged = _learn(steps=2).state_dict()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in state(model).items())


def test_batches_that_end_early_are_an_error() -> None:
    with pytest.raises(DataError, match="ended after 4 of 12 steps"):
        _learn(islice(toy_batches(), 4))


def test_a_parameter_that_the_last_backward_does_not_reach_is_still_stepped() -> None:
    learned = _learn(steps=1)
    start = _learn(steps=0)
    for name in ("left.weight", "right.weight", "shared.weight"):
        assert not torch.equal(learned.coefficients.w[name], start.coefficients.w[name])


@pytest.mark.parametrize("granularity", ["tensor", "module", "model"])
def test_tensors_without_gradient_keep_the_initial_coefficient(granularity: str) -> None:
    learned = _learn(granularity=granularity, init=0.25)
    torch.testing.assert_close(learned.coefficients.effective("offset"), torch.tensor([0.25, 0.25]))
    base = state(toy_model())
    experts = toy_experts(base)
    expected = base["offset"] + sum(0.25 * (expert["offset"] - base["offset"]) for expert in experts.values())
    torch.testing.assert_close(learned.state_dict()["offset"], expected)
    assert learned.state_dict()["count"] == 7


def test_a_tensor_that_no_expert_changed_costs_nothing_and_changes_nothing() -> None:
    base, wanted = state(toy_model()), []
    experts = {name: {**expert, "shared.weight": base["shared.weight"]} for name, expert in toy_experts(base).items()}
    model = toy_model()

    def loss(model: nn.Module, task: str, batch: Any) -> torch.Tensor:
        wanted.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})
        return toy_loss(model, task, batch)

    learned = learn(model, base, experts, toy_batches(), loss, steps=3, lr=0.05, init=0.25)
    every = {name for name, _ in model.named_parameters()}
    assert all(names == every - {"shared.weight"} for names in wanted)
    changed = sum(p.numel() * p.element_size() for name, p in model.named_parameters() if name != "shared.weight")
    assert learned.bytes_read == (3 * changed, 3 * 2 * changed)
    torch.testing.assert_close(learned.coefficients.effective("shared.weight"), torch.tensor([0.25, 0.25]))
    assert torch.equal(learned.state_dict()["shared.weight"], base["shared.weight"])


def test_experts_equal_to_the_base_are_refused() -> None:
    base = state(toy_model())
    with pytest.raises(CheckpointError, match="No expert differs from the base"):
        learn(toy_model(), base, {"one": base}, toy_batches(), toy_loss, steps=3, lr=0.05)


def test_the_model_gets_its_mode_and_flags_back() -> None:
    model = toy_model().train()
    model.left.bias.requires_grad_(False)
    modes: list[bool] = []

    def watching(model: nn.Module, task: str, batch: Any) -> torch.Tensor:
        modes.append(model.training)
        return toy_loss(model, task, batch)

    base = state(model)
    learn(model, base, toy_experts(base), toy_batches(), watching, steps=2, lr=0.1)
    assert not any(modes)
    assert model.training
    assert model.left.training
    assert not model.left.bias.requires_grad
    assert model.right.bias.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_reentrant_checkpointing_is_refused() -> None:
    def twice(model: Any, task: str, batch: Any) -> torch.Tensor:
        x, y = batch

        def layer(x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(model.shared(x))

        x = x.requires_grad_()
        first = checkpoint(layer, x, use_reentrant=True)
        second = checkpoint(layer, x + 1, use_reentrant=True)
        return nn.functional.cross_entropy(model.left(first + second), y)

    base = state(toy_model())
    with pytest.raises(UsageError, match="arrived twice in one backward pass"):
        learn(toy_model(), base, toy_experts(base), [toy_batch("left")], twice, steps=1, lr=0.1)


def test_half_precision_models_are_refused() -> None:
    model = toy_model().half()
    base = state(model)
    with pytest.raises(UsageError, match="is float16"):
        learn(model, base, toy_experts(base), toy_batches(), toy_loss, steps=1, lr=0.1)


def test_a_bfloat16_model_is_learned_in_fp32() -> None:
    model = toy_model().bfloat16()
    base = state(model)

    def loss(model: nn.Module, task: str, batch: Any) -> torch.Tensor:
        return toy_loss(model, task, (batch[0].bfloat16(), batch[1]))

    learned = learn(model, base, toy_experts(base), toy_batches(), loss, steps=3, lr=1e-3)
    w = learned.coefficients.w["shared.weight"]
    assert w.dtype == torch.float32
    # Three steps of 1e-3 round away in bf16 (spacing 2e-3 at 0.31), and must not here.
    assert 0 < (w - torch.tensor(0.3).atanh()).abs().max() < 4e-3
    assert learned.state_dict()["shared.weight"].dtype == torch.bfloat16


def test_mixed_precision_learns_nearly_the_same() -> None:
    fp32, bf16 = _learn(steps=3), _learn(steps=3, precision="bf16")
    difference = (fp32.coefficients.w["shared.weight"] - bf16.coefficients.w["shared.weight"]).abs().max()
    assert 0 < difference < 0.1


def test_all_differences_are_named_at_once() -> None:
    base = state(toy_model())
    experts = toy_experts(base)
    experts["expert0"]["left.weight"] = torch.zeros(3, 4)
    del experts["expert1"]["right.bias"]
    with pytest.raises(CheckpointError) as caught:
        learn(toy_model(), base, experts, toy_batches(), toy_loss, steps=1, lr=0.1)
    assert "left.weight: [3, 4] in expert expert0, [2, 4] in the model" in str(caught.value)
    assert "right.bias: missing from expert expert1" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("init", [0.3, 0.0])
def test_a_value_that_is_not_finite_is_named(value: float, init: float) -> None:
    base = state(toy_model())
    experts = toy_experts(base)
    experts["expert1"]["left.bias"][1] = value
    with pytest.raises(CheckpointError, match=r"left\.bias: NaN or Inf in expert expert1"):
        learn(toy_model(), base, experts, toy_batches(), toy_loss, steps=1, lr=0.1, init=init)


def test_coefficients_survive_saving(tmp_path: Path) -> None:
    learned = _learn(granularity="module", link="clamp")
    learned.coefficients.save(tmp_path / "c.safetensors")
    loaded = Coefficients.load(tmp_path / "c.safetensors")
    assert (loaded.experts, loaded.link, loaded.groups) == (
        ("expert0", "expert1"),
        "clamp",
        learned.coefficients.groups,
    )
    assert all(torch.equal(w, loaded.w[group]) for group, w in learned.coefficients.w.items())
    assert torch.equal(loaded.effective("left.bias"), learned.coefficients.effective("left.weight"))
