"""Learning on adapters is learning on the dense models that they make, without making them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from dense_models import dense
from peft_models import CASES, IDS, Trained

from supermerge import learn, merge
from supermerge.errors import CheckpointError
from supermerge.learn import Diverged, EarlyStopping, Learned, Saving
from supermerge.learn.factored_engine import FactoredEngine

Make = Callable[..., Trained]


def loss(model: nn.Module, task: str, ids: Tensor) -> Tensor:
    """Cross-entropy of the tokens, shifted or not, or of the class 1."""
    extra: dict[str, Tensor] = {"decoder_input_ids": ids} if getattr(model, "encoder", None) is not None else {}
    logits = model(input_ids=ids, **extra).logits
    targets = ids if logits.dim() == 3 else torch.ones(len(ids), dtype=torch.long)
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def in_double(directory: Path) -> None:
    """The checkpoint in float64."""
    path = directory / "model.safetensors"
    tensors = {name: tensor.double() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(tensors, path)


def learned(made: Trained, experts: dict[str, Path], *, double: bool, steps: int = 3, **options: Any) -> Learned:
    model = made.case.model()
    options = {"lr": 0.05, **options}
    items = [[("a", IDS[:1]), ("b", IDS[1:], 0.5)]] * steps
    return learn(model.double() if double else model, made.base, experts, items, loss, steps=steps, **options)


def both(
    made: Trained, others: list[Trained], directory: Path, *, double: bool, **options: Any
) -> tuple[Learned, Learned]:
    """From adapters, and from their dense models."""
    if double:
        in_double(made.base)
    adapters = {f"expert{i}": one.adapter for i, one in enumerate([made, *others])}
    models = {name: dense(made.base, path, directory / f"dense-{name}") for name, path in adapters.items()}
    return learned(made, adapters, double=double, **options), learned(made, models, double=double, **options)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FactoredEngine]:
    """The engines for adapters that were made."""
    found: list[FactoredEngine] = []
    enter = FactoredEngine.__enter__

    def entered(engine: FactoredEngine) -> FactoredEngine:
        found.append(engine)
        return enter(engine)

    monkeypatch.setattr(FactoredEngine, "__enter__", entered)
    return found


def assert_same_coefficients(one: Learned, other: Learned) -> None:
    assert one.coefficients.w.keys() == other.coefficients.w.keys()
    for group, w in other.coefficients.w.items():
        torch.testing.assert_close(one.coefficients.w[group], w, rtol=0, atol=1e-8, msg=lambda m, g=group: f"{g}: {m}")


@pytest.mark.parametrize("name", CASES)
def test_every_feature_learns_as_its_dense_model(
    name: str, trained: Make, tmp_path: Path, engines: list[FactoredEngine]
) -> None:
    """In float64, coefficients to 1e-8, and so the merged tensors."""
    made = trained(name, 1)
    from_adapters, from_models = both(made, [trained(name, 2)], tmp_path, double=True)
    assert_same_coefficients(from_adapters, from_models)
    assert max(float((w - w.flatten()[0]).abs().max()) for w in from_models.coefficients.w.values()) > 1e-3
    for tensor, value in from_models.state_dict().items():
        torch.testing.assert_close(from_adapters.state_dict()[tensor], value, rtol=0, atol=1e-8)
    assert len(engines) == (0 if "dora" in name else 1)


GRID = [
    *[("tanh", granularity) for granularity in ("model", "layer", "module", "row")],
    *[(link, granularity) for link in ("identity", "clamp", "softmax") for granularity in ("tensor", "row")],
]
PAIRS = [
    # All on embeddings, which are used in two ways, and the two paths of the coefficients on every kind of weight.
    pytest.param(name, link, granularity, marks=() if quick else pytest.mark.slow)
    for name in ("embeddings", "conv1d", "t5", "ia3, t5")
    for link, granularity in GRID
    for quick in [name == "embeddings" or (link, granularity) in {("tanh", "row"), ("softmax", "tensor")}]
]


@pytest.mark.parametrize(("name", "link", "granularity"), PAIRS)
def test_every_link_and_granularity(name: str, link: str, granularity: str, trained: Make, tmp_path: Path) -> None:
    options = {"link": link, "granularity": granularity, "steps": 2}
    from_adapters, from_models = both(trained(name, 1), [trained(name, 2)], tmp_path, double=True, **options)
    assert_same_coefficients(from_adapters, from_models)


MIXED = ["rank and alpha patterns", "ia3", "dora", "both biases", "embeddings", "some layers"]


@pytest.mark.parametrize("options", [{}, {"granularity": "module", "clip": 0.01}, {"granularity": "row"}])
def test_adapters_of_many_kinds_at_once(options: dict[str, Any], trained: Make, tmp_path: Path) -> None:
    others = [trained(name, seed) for seed, name in enumerate(MIXED, 2)]
    from_adapters, from_models = both(trained("all linear", 1), others, tmp_path, double=True, **options)
    assert_same_coefficients(from_adapters, from_models)


@pytest.mark.parametrize("name", ["all linear", "embeddings", "ia3", "conv1d", "modules to save"])
def test_the_merged_model_in_single_precision(name: str, trained: Make, tmp_path: Path) -> None:
    from_adapters, from_models = both(trained(name, 1), [trained(name, 2)], tmp_path, double=False)
    for tensor, value in from_models.state_dict().items():
        torch.testing.assert_close(from_adapters.state_dict()[tensor], value, rtol=0, atol=1e-5)


def test_weights_stay_the_base_and_want_no_gradient(trained: Make, engines: list[FactoredEngine]) -> None:
    """While learning; whoever asks for their values gets the merge, and at the end they hold it."""
    made, seen = trained("all linear", 1), []
    model = made.case.model()
    held = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def watching(model: nn.Module, task: str, ids: Tensor) -> Tensor:
        weights = {name: one for name, one in model.named_parameters() if "_proj.weight" in name}
        assert not any(one.requires_grad for one in weights.values())
        assert all(torch.equal(held[name], made.state[name]) for name in weights)
        seen.append({name: one.detach().clone() for name, one in weights.items()})
        return loss(model, task, ids)

    experts = {"one": made.adapter, "two": trained("all linear", 2).adapter}
    found = learn(model, made.base, experts, [("a", IDS)] * 3, watching, steps=3, lr=0.1)
    assert found.bytes_read == (0, 0)
    assert len(engines) == 1
    assert not any(torch.equal(seen[1][name], seen[2][name]) for name in seen[0])
    assert all(torch.equal(parameter, held[name]) for name, parameter in found.state_dict().items())
    before = learn(made.case.model(), made.base, experts, [("a", IDS)] * 3, loss, steps=2, lr=0.1).state_dict()
    for name, merged in seen[2].items():
        torch.testing.assert_close(merged, before[name], rtol=0, atol=1e-6)


def test_memory_or_disk_make_no_difference(trained: Make) -> None:
    made, experts = trained("both biases", 1), {"two": trained("modules to save", 2).adapter}
    every = {"one": made.adapter, **experts}
    disk, *others = (learned(made, every, double=False, residency=r) for r in ("disk", "memory", "offload"))
    for other in others:
        assert all(torch.equal(w, other.coefficients.w[group]) for group, w in disk.coefficients.w.items())
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in disk.state_dict().items())


def test_an_interrupted_run_ends_like_an_uninterrupted_one(trained: Make, tmp_path: Path) -> None:
    made, experts = trained("both biases", 1), {"two": trained("modules to save", 2).adapter}
    experts = {"one": made.adapter, **experts}
    saving, steps = Saving(tmp_path / "state.safetensors", key="this run"), 5

    def stumbling(model: nn.Module, task: str, ids: Tensor) -> Tensor:
        value = loss(model, task, ids)
        calls.append(1)
        if len(calls) == 6:
            value.register_hook(lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
        return value

    calls: list[int] = []
    items = [[("a", IDS[:1]), ("b", IDS[1:], 0.5)]] * steps
    with pytest.raises(KeyboardInterrupt):
        learn(made.case.model(), made.base, experts, items, stumbling, steps=steps, lr=0.05, saving=saving)
    resumed = learned(made, experts, double=False, steps=steps, saving=saving)
    whole = learned(made, experts, double=False, steps=steps)
    assert resumed.history == whole.history
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in resumed.state_dict().items())


def test_early_stopping_sees_the_merge_and_gives_the_best(trained: Make) -> None:
    made = trained("both biases", 1)
    values, seen = iter([5.0, 3.0, 4.0, 4.0]), []

    def held_back(model: nn.Module) -> float:
        seen.append(loss(model, "a", IDS).item())
        return next(values)

    stopping = EarlyStopping(held_back, patience=2)
    model = made.case.model()
    found = learn(
        model, made.base, {"one": made.adapter}, [("a", IDS)] * 9, loss, steps=9, lr=0.1, early_stopping=stopping
    )
    assert found.best_step == 1
    assert len(set(seen)) == 4
    assert loss(model, "a", IDS).item() == pytest.approx(seen[1], abs=1e-5)


def test_divergence_leaves_the_last_good_merge(trained: Make) -> None:
    made, model = trained("both biases", 1), trained("both biases", 1).case.model()
    calls: list[int] = []

    def exploding(model: nn.Module, task: str, ids: Tensor) -> Tensor:
        calls.append(1)
        return loss(model, task, ids) * (float("nan") if len(calls) == 4 else 1)

    with pytest.raises(Diverged) as caught:
        learn(model, made.base, {"one": made.adapter}, [("a", IDS)] * 9, exploding, steps=9, lr=0.1)
    good = learn(made.case.model(), made.base, {"one": made.adapter}, [("a", IDS)] * 2, loss, steps=2, lr=0.1)
    assert all(torch.equal(w, good.coefficients.w[group]) for group, w in caught.value.coefficients.w.items())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in good.state_dict().items())


def test_a_value_that_is_not_finite_is_named(trained: Make) -> None:
    made = trained("lora", 1)
    path = made.adapter / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"][3, 1] = float("nan")
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.v_proj\.weight: NaN or Inf in expert one"):
        learned(made, {"one": made.adapter}, double=False)


def test_mixed_precision_learns_nearly_the_same(trained: Make) -> None:
    made = trained("ia3", 1)
    experts = {"one": made.adapter, "two": trained("all linear", 2).adapter}
    fp32, bf16 = (learned(made, experts, double=False, precision=precision) for precision in ("fp32", "bf16"))
    name = "model.layers.0.self_attn.v_proj.weight"
    assert 0 < float((fp32.coefficients.w[name] - bf16.coefficients.w[name]).abs().max()) < 0.1


def test_a_model_in_bf16_is_learned_in_fp32(trained: Make) -> None:
    made = trained("ia3", 1)
    experts = {"one": made.adapter, "two": trained("all linear", 2).adapter}
    model = made.case.model().bfloat16()
    found = learn(model, made.base, experts, [("a", IDS)] * 3, loss, steps=3, lr=1e-3)
    w = found.coefficients.w["model.layers.0.self_attn.v_proj.weight"]
    assert w.dtype == torch.float32
    assert 0 < float((w - torch.tensor(0.3).atanh()).abs().max()) < 4e-3
    wanted = merge(made.base, experts, "task_arithmetic", [0.3, 0.3])
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        torch.testing.assert_close(parameter.float(), wanted[name], rtol=0.02, atol=0.02)


class Odd(nn.Module):
    """A weight used in ways that no engine foresees, and by the ones that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        w = self.layer.weight
        assert (w.shape, w.dtype, w.size(0), w.dim(), w.device) == ((6, 6), x.dtype, 6, 2, x.device)
        parts = [
            x @ w,
            x @ w.T,
            torch.einsum("ni,oi->no", x, w),
            torch.stack([w, w]).sum(0)[: len(x)],
            x @ w.view(w.shape).expand(torch.Size([2, 6, 6])),
            nn.functional.linear(input=x, weight=w),
            nn.functional.linear(w[: len(x)], w),
            nn.functional.linear(x, w, bias=x[0]),
            nn.functional.linear(x, w, x[0]),
            torch.addmm(x[0], x, w),
            torch.addmm(x[0], x, w, beta=2),
            nn.functional.embedding(torch.tensor([1, 5, 1]), w, padding_idx=0),
            w.data[: len(x)] if w.data.shape == w.shape else x,
            self.layer(x),
        ]
        return torch.stack([part.sin().sum() for part in parts]).sum()


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_any_use_of_a_weight_is_a_use_of_its_merge(granularity: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Odd().double()
    (tmp_path / "base").mkdir()
    save_file(model.state_dict(), tmp_path / "base" / "model.safetensors")
    experts = {}
    for name in ("one", "two"):
        experts[name] = tmp_path / name
        experts[name].mkdir()
        factors = {"A": torch.randn(1, 6), "B": torch.randn(6, 1)}
        written = {f"base_model.model.layer.lora_{part}.weight": tensor for part, tensor in factors.items()}
        save_file(written, experts[name] / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["layer"]}
        (experts[name] / "adapter_config.json").write_text(json.dumps(config))
    models = {name: dense(tmp_path / "base", path, tmp_path / f"dense-{name}") for name, path in experts.items()}
    items = [("t", torch.randn(3, 6).double())] * 3
    found = [
        learn(
            model,
            tmp_path / "base",
            chosen,
            items,
            lambda model, _, x: model(x),
            steps=3,
            lr=0.1,
            granularity=granularity,
        )
        for chosen in (experts, models)
    ]
    assert_same_coefficients(*found)
