"""Methods that need no more than the factors of LoRA adapters: the answers are those of the dense way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from peft_models import Trained

from supermerge import run
from supermerge.assemble import merge_into, output_infos
from supermerge.assemble.merge import StateDict
from supermerge.assemble.thin import Thin
from supermerge.checkpoint import Checkpoint, Match, match, open_expert
from supermerge.checkpoint.adapters.adapted import Adapted
from supermerge.errors import CheckpointError, RefusedError
from supermerge.verify import verify

Make = Callable[..., Trained]
FACTORED = [
    ("linear", {"weights": [2, 1]}),
    ("task_arithmetic", {"weights": [0.7, -0.4]}),
    ("knots", {}),
    ("knots", {"merge": "dare_ties", "density": 0.6}),
    ("core_space", {}),
    ("core_space", {"merge": "iso_c"}),
    ("core_space", {"merge": "ties"}),
]


def widened(directory: Path) -> None:
    """The stored tensors in float64, where nothing but the algorithm can differ."""
    for path in directory.glob("*.safetensors"):
        tensors = {name: tensor.double() for name, tensor in load_file(path).items()}
        path.unlink()
        save_file(tensors, path)


def dense(base: Checkpoint, adapter: Path) -> dict[str, Tensor]:
    with ExitStack() as stack:
        expert = open_expert(adapter, base, stack)
        return {name: expert.read(name).clone() for name in expert.tensors}


def merged(matched: Match, method: str, params: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    """The merge, and the inner products of base and task vectors."""
    sink = StateDict(output_infos(matched))
    seen = merge_into(sink, method, matched, params=params, geometry=True, threads=1)
    assert seen.geometry is not None
    return sink.tensors, seen.geometry.gram


@pytest.fixture
def pair(trained: Make) -> tuple[Path, dict[str, Path]]:
    """Two adapters of different ranks and targets, an embedding and a transposed product among them, in float64."""
    made = [trained("embeddings", 1), trained("rank and alpha patterns", 2)]
    for directory in (made[0].base, *(one.adapter for one in made)):
        widened(directory)
    return made[0].base, {f"expert{i}": one.adapter for i, one in enumerate(made)}


@pytest.mark.parametrize(("method", "params"), FACTORED)
def test_factors_give_what_dense_task_vectors_give(
    method: str, params: dict[str, Any], pair: tuple[Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapters = pair
    with ExitStack() as stack:
        opened = stack.enter_context(Checkpoint.open(base))
        models = {name: Checkpoint.open(dense(opened, path)) for name, path in adapters.items()}
        full, full_gram = merged(match(opened, models), method, params)
        matched = match(opened, {name: open_expert(path, opened, stack) for name, path in adapters.items()})
        monkeypatch.setattr(Adapted, "read_flat", refuse)
        monkeypatch.setattr(Adapted, "read", refuse)
        before = opened.bytes_read
        thin, thin_gram = merged(matched, method, params)
        size = sum(info.nbytes for info in opened.tensors.values())
        assert opened.bytes_read - before == size, "the base is read once, whatever the number of experts"
    for name, tensor in full.items():
        torch.testing.assert_close(thin[name], tensor, rtol=0, atol=1e-9, msg=name)
    torch.testing.assert_close(thin_gram, full_gram, rtol=1e-5, atol=1e-5)


def refuse(*_: object, **__: object) -> Tensor:
    raise AssertionError("a dense expert is worked out")


def test_in_fp32_they_agree_to_its_rounding(trained: Make) -> None:
    made = [trained("lora", 1), trained("conv1d", 1)]
    for one, other in zip(made, (trained("lora", 2), trained("conv1d", 2)), strict=True):
        with ExitStack() as stack:
            opened = stack.enter_context(Checkpoint.open(one.base))
            paths = {"a": one.adapter, "b": other.adapter}
            models = {name: Checkpoint.open(dense(opened, path)) for name, path in paths.items()}
            full, _ = merged(match(opened, models), "task_arithmetic", {"weights": [0.7, -0.4]})
            adapters = {name: open_expert(path, opened, stack) for name, path in paths.items()}
            thin, _ = merged(match(opened, adapters), "task_arithmetic", {"weights": [0.7, -0.4]})
        for name, tensor in full.items():
            torch.testing.assert_close(thin[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_a_base_that_is_scaled_is_read_in_full(pair: tuple[Path, dict[str, Path]]) -> None:
    """θ = Σ wᵢ θᵢ has (Σ wᵢ − 1) θp, which factors do not hold."""
    base, adapters = pair
    with ExitStack() as stack:
        opened = stack.enter_context(Checkpoint.open(base))
        models = {name: Checkpoint.open(dense(opened, path)) for name, path in adapters.items()}
        params = {"weights": [2, 1], "normalize": False}
        full, _ = merged(match(opened, models), "linear", params)
        matched = match(opened, {name: open_expert(path, opened, stack) for name, path in adapters.items()})
        seen, _ = merged(matched, "linear", params)
    assert all(torch.equal(tensor, full[name]) for name, tensor in seen.items())


def test_threads_and_cuts_change_no_byte(pair: tuple[Path, dict[str, Path]]) -> None:
    base, adapters = pair
    found = []
    for threads in (1, 3):
        with ExitStack() as stack:
            opened = stack.enter_context(Checkpoint.open(base))
            matched = match(opened, {name: open_expert(path, opened, stack) for name, path in adapters.items()})
            sink = StateDict(output_infos(matched))
            merge_into(sink, "knots", matched, threads=threads)
            found.append(sink.tensors)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_what_is_more_than_factors_is_not_taken_for_them(trained: Make) -> None:
    names = {"lora": True, "dora": False, "ia3": False, "both biases": True}
    for case, thin in names.items():
        made = trained(case)
        with ExitStack() as stack:
            opened = stack.enter_context(Checkpoint.open(made.base))
            found = Thin(match(opened, {"one": open_expert(made.adapter, opened, stack)}))
            assert found.has("model.layers.0.self_attn.v_proj.weight") == thin, case
            assert found.has("model.layers.0.self_attn.v_proj.bias") == (case in ("lora", "dora")), case
            assert found.has("model.norm.weight"), case


def test_a_full_expert_beside_them_and_an_adapter_on_another_model(
    pair: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, adapters = pair
    with ExitStack() as stack:
        opened = stack.enter_context(Checkpoint.open(base))
        model = dense(opened, adapters["expert0"])
        full = stack.enter_context(Checkpoint.open(model))
        one = open_expert(adapters["expert1"], opened, stack)
        assert not Thin(match(opened, {"full": full, "one": one})).has("model.norm.weight")
        on_it = open_expert(full, opened, stack, adapter=str(adapters["expert1"]))
        assert not Thin(match(opened, {"other": on_it, "one": one})).has("model.norm.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_factors_that_are_not_finite_are_refused(value: float, trained: Make) -> None:
    made, other = trained("lora", 1), trained("lora", 2)
    path = made.adapter / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    tensors[name][2, 1] = value
    path.unlink()
    save_file(tensors, path)
    with ExitStack() as stack:
        opened = stack.enter_context(Checkpoint.open(made.base))
        matched = match(
            opened, {"bad": open_expert(made.adapter, opened, stack), "good": open_expert(other.adapter, opened, stack)}
        )
        with pytest.raises(CheckpointError, match=rf"expert 'bad'.*'{name}'.*\[2, 1\]"):
            merged(matched, "linear", {})


def test_settings_are_part_of_what_a_lock_file_holds(trained: Make, tmp_path: Path) -> None:
    one, two = trained("lora", 1), trained("lora", 2)
    experts = {"one": str(one.adapter), "two": str(two.adapter)}
    run({"base": str(one.base), "experts": experts, "method": "knots"}, output=tmp_path / "merged")
    assert verify(tmp_path / "merged").inputs == ("base", "one", "two")
    path = one.adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 30}))
    with pytest.raises(RefusedError, match=r"expert one: adapter_config\.json has changed"):
        verify(tmp_path / "merged")
