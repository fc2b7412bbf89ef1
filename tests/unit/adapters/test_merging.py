"""Adapters are merged as what they are: the dense models that they make, to the last bit."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from dense_models import dense, values_of
from peft_models import Trained

from supermerge import merge, plan, run
from supermerge.checkpoint import Checkpoint, open_expert
from supermerge.errors import CheckpointError
from supermerge.inspection import inspect
from supermerge.verify import verify

Make = Callable[..., Trained]
# What reads by element, by matrix and by model.
METHODS = ("ties", "dare_linear", "breadcrumbs", "tsv_m", "iso_c", "pcb")


@pytest.fixture
def three(trained: Make, tmp_path: Path) -> tuple[Path, dict[str, Path], dict[str, Path]]:
    """A base, three adapters of different kinds, ranks and targets on it, and their dense equivalents."""
    made = [trained("lora", 1), trained("rank and alpha patterns", 2), trained("ia3", 3)]
    adapters = {f"expert{i}": one.adapter for i, one in enumerate(made)}
    base = made[0].base
    return base, adapters, {name: dense(base, path, tmp_path / f"dense-{name}") for name, path in adapters.items()}


@pytest.mark.parametrize("method", METHODS)
def test_methods_merge_adapters_as_their_dense_models(
    method: str, three: tuple[Path, dict[str, Path], dict[str, Path]]
) -> None:
    base, adapters, models = three
    from_adapters, from_models = merge(base, adapters, method), merge(base, models, method)
    assert from_adapters.keys() == from_models.keys()
    assert all(torch.equal(tensor, from_models[name]) for name, tensor in from_adapters.items())


def test_a_weighted_sum_is_that_of_the_factors(three: tuple[Path, dict[str, Path], dict[str, Path]]) -> None:
    """θp + Σ wᵢ sᵢ Bᵢ Aᵢ, computed here in float64 from the files."""
    base, adapters, _ = three
    weights, name = [0.7, -0.4, 0.9], "model.layers.1.self_attn.v_proj"
    merged = merge(base, adapters, "task_arithmetic", weights)[f"{name}.weight"]
    files = [load_file(path / "adapter_model.safetensors") for path in adapters.values()]
    stored = load_file(base / "model.safetensors")[f"{name}.weight"].double()
    expected, module = stored.clone(), f"base_model.model.{name}"
    for weight, file, scale in zip(weights[:2], files[:2], (3 / 2, 3 / 5), strict=True):
        expected += weight * scale * file[f"{module}.lora_B.weight"].double() @ file[f"{module}.lora_A.weight"].double()
    expected += weights[2] * (file_scales(files[2], module) - 1) * stored
    torch.testing.assert_close(merged.double(), expected, rtol=0, atol=1e-6)


def file_scales(file: dict[str, Tensor], module: str) -> Tensor:
    return file[f"{module}.ia3_l"].double()


@pytest.mark.parametrize("name", ["dora", "conv1d, dora", "embeddings, dora", "both biases", "ia3, conv1d"])
def test_pieces_are_cut_from_the_whole(name: str, trained: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained(name)
    monkeypatch.setattr("supermerge.checkpoint.adapters.adapted._BLOCK", 48)
    with ExitStack() as stack:
        expert = open_expert(made.adapter, stack.enter_context(Checkpoint.open(made.base)), stack)
        for tensor, info in expert.tensors.items():
            whole = expert.read(tensor).flatten().clone()
            cuts = sorted({0, 1, 7, info.numel // 3, info.numel // 2 + 1, info.numel - 1, info.numel})
            pieces = [expert.read_flat(tensor, *ends).clone() for ends in pairwise(cuts)]
            assert torch.equal(torch.cat(pieces), whole), tensor


def test_one_full_expert_and_one_adapter(three: tuple[Path, dict[str, Path], dict[str, Path]]) -> None:
    base, adapters, models = three
    mixed = merge(base, {"expert0": adapters["expert0"], "expert1": models["expert1"]}, "ties")
    full = merge(base, {name: models[name] for name in ("expert0", "expert1")}, "ties")
    assert all(torch.equal(tensor, full[name]) for name, tensor in mixed.items())


def test_an_adapter_on_an_expert(three: tuple[Path, dict[str, Path], dict[str, Path]], tmp_path: Path) -> None:
    """{model: M, adapter: A} is A on M; `run` and `verify` read both again."""
    base, adapters, models = three
    experts = {
        "one": {"model": str(models["expert0"]), "adapter": str(adapters["expert1"])},
        "two": str(adapters["expert2"]),
    }
    recipe = {"base": str(base), "experts": experts, "method": {"name": "task_arithmetic", "scale": 1.0}}
    planned = plan(recipe)
    assert [model.ref for model in planned.models[1:]] == [str(adapters["expert1"]), str(adapters["expert2"])]
    run(recipe, output=tmp_path / "merged")
    merged, stored = load_file(tmp_path / "merged" / "model.safetensors"), load_file(base / "model.safetensors")
    ones, twos = values_of(models["expert0"], adapters["expert1"]), values_of(base, adapters["expert2"])
    for name, tensor in stored.items():
        torch.testing.assert_close(merged[name], ones[name] + twos[name] - tensor, rtol=0, atol=1e-6)
    assert verify(tmp_path / "merged").inputs == ("base", "one", "two")
    shutil.rmtree(models["expert0"])
    assert verify(tmp_path / "merged").unreachable == ("one",)


def test_an_adapter_is_inspected_on_its_base(three: tuple[Path, dict[str, Path], dict[str, Path]]) -> None:
    base, adapters, models = three
    seen, expected = (
        inspect([str(path) for path in paths.values()], str(base)).comparison for paths in (adapters, models)
    )
    assert seen is not None
    assert expected is not None
    torch.testing.assert_close(torch.tensor(seen.norms), torch.tensor(expected.norms))
    torch.testing.assert_close(torch.tensor(seen.cosines), torch.tensor(expected.cosines))


def test_a_retrained_adapter_is_another(trained: Make) -> None:
    made = trained("lora")
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(made.base))
        before = open_expert(made.adapter, base, stack)
        value = before.read("model.layers.0.self_attn.q_proj.weight").clone()
        trained("lora", 9).adapter.joinpath("adapter_model.safetensors").replace(
            made.adapter / "adapter_model.safetensors"
        )
        after = open_expert(made.adapter, base, stack)
        assert after.fingerprint() != before.fingerprint()
        assert not torch.equal(after.read("model.layers.0.self_attn.q_proj.weight"), value)
        with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: changed while it was being read"):
            before.require_unchanged()


def test_changed_settings_are_another_adapter(trained: Make) -> None:
    made = trained("lora")
    path = made.adapter / "adapter_config.json"
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(made.base))
        before = open_expert(made.adapter, base, stack)
        path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 30}))
        assert open_expert(made.adapter, base, stack).fingerprint() != before.fingerprint()


def test_another_name_of_the_base_is_noted(trained: Make) -> None:
    made = trained("lora")
    path = made.adapter / "adapter_config.json"
    written = json.loads(path.read_text())
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(made.base))
        for name, noted in (("someone/BASE-llama", False), ("someone/other", True), (None, False)):
            path.write_text(json.dumps({**written, "base_model_name_or_path": name}))
            notes = open_expert(made.adapter, base, stack).notes
            assert notes == (
                (f"adapter {made.adapter}: its config says that it was trained on {name}, not on {made.base}",) * noted
            )


def test_a_base_in_bf16_keeps_the_whole_task_vector(trained: Make, tmp_path: Path) -> None:
    """The sum is rounded to fp32, not to the base's dtype, in which a small τ would vanish."""
    made = trained("lora")
    narrow = {name: tensor.bfloat16() for name, tensor in load_file(made.base / "model.safetensors").items()}
    path = made.base / "model.safetensors"
    path.unlink()
    save_file(narrow, path)
    wide = values_of(made.base, made.adapter)["model.layers.0.self_attn.q_proj.weight"]
    file = load_file(made.adapter / "adapter_model.safetensors")
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tau = 1.5 * file[f"{module}.lora_B.weight"] @ file[f"{module}.lora_A.weight"]
    assert wide.dtype == torch.float32
    torch.testing.assert_close(wide - narrow["model.layers.0.self_attn.q_proj.weight"].float(), tau, rtol=0, atol=1e-6)
