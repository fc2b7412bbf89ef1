"""A merge of adapters that is an adapter again: peft, which judges here, loads it on the base as the dense merge."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from peft_models import CASES, Trained, logits

from supermerge import load, merge, plan, run
from supermerge.assemble import Choice
from supermerge.assemble.adapter import Learning, adapter_layout
from supermerge.checkpoint import Checkpoint, match, open_expert
from supermerge.cli.result import print_result
from supermerge.errors import RecipeError
from supermerge.lock import Lock
from supermerge.methods import get
from supermerge.run.checking import check
from supermerge.verify import verify

Make = Callable[..., Trained]
WEIGHTS = {"name": "task_arithmetic", "weights": [0.7, -0.4]}
EXACT = [name for name in CASES if "dora" not in name]


def recipe(base: Path, adapters: dict[str, Path], method: Any, **output: Any) -> dict[str, Any]:
    experts = {name: str(path) for name, path in adapters.items()}
    return {"base": str(base), "experts": experts, "method": method, "output": output}


def both(trained: Make, *names: str) -> tuple[Trained, dict[str, Path]]:
    """The first of two adapters, of one case or of two, and both directories."""
    made = [trained(name, seed) for seed, name in enumerate([names[0], names[-1]], 1)]
    return made[0], {f"expert{i}": one.adapter for i, one in enumerate(made)}


def dense_logits(made: Trained, directory: Path) -> Tensor:
    model = made.case.model()
    model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    return logits(model)


@pytest.mark.parametrize("name", EXACT)
def test_in_peft_it_is_the_dense_merge(name: str, trained: Make, tmp_path: Path) -> None:
    made, adapters = both(trained, name)
    run(recipe(made.base, adapters, WEIGHTS), output=tmp_path / "dense")
    done = run(recipe(made.base, adapters, WEIGHTS, save_as="adapter"), output=tmp_path / "merged")
    oracle = logits(made.peft(tmp_path / "merged"))
    torch.testing.assert_close(oracle, dense_logits(made, tmp_path / "dense"), rtol=0, atol=1e-5)
    assert float((oracle - logits(made.model())).abs().max()) > 1e-3
    assert done.results.adapter is not None
    assert done.results.adapter.errors == {}
    assert done.results.adapter.kind == ("IA3" if "ia3" in name else "LORA")
    assert verify(tmp_path / "merged").loads_as
    assert check(tmp_path / "merged")
    torch.testing.assert_close(logits(load(tmp_path / "merged")), oracle, rtol=0, atol=1e-5)


def test_adapters_of_different_ranks_targets_and_modules(trained: Make, tmp_path: Path) -> None:
    """Ranks add per module, what one alone trains is kept, and what two train in different ways is there whole."""
    made, adapters = both(trained, "modules to save", "rank and alpha patterns")
    adapters["third"] = trained("all linear", 3).adapter
    adapters["fourth"] = trained("both biases", 4).adapter
    method = {"name": "task_arithmetic", "weights": [0.7, -0.4, 0.2, 0.5]}
    run(recipe(made.base, adapters, method), output=tmp_path / "dense")
    run(recipe(made.base, adapters, method, save_as="adapter"), output=tmp_path / "merged")
    oracle = logits(made.peft(tmp_path / "merged"))
    torch.testing.assert_close(oracle, dense_logits(made, tmp_path / "dense"), rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    shapes = {name: tuple(t.shape) for name, t in load_file(tmp_path / "merged" / "adapter_model.safetensors").items()}
    module = "model.layers.1.self_attn.v_proj"
    assert shapes[f"base_model.model.{module}.lora_A.weight"] == (2 + 5 + 2 + 2, 16)
    assert config["rank_pattern"][module] == config["alpha_pattern"][module] == 11
    assert "lm_head" in config["modules_to_save"]
    assert config["bias"] == "lora_only"


@pytest.mark.parametrize("name", ["lora", "conv1d", "embeddings"])
@pytest.mark.parametrize("method", ["knots", "core_space"])
def test_what_is_made_on_factors_stays_exact(name: str, method: str, trained: Make, tmp_path: Path) -> None:
    made, adapters = both(trained, name)
    run(recipe(made.base, adapters, method), output=tmp_path / "dense")
    done = run(recipe(made.base, adapters, method, save_as="adapter"), output=tmp_path / "merged")
    oracle = logits(made.peft(tmp_path / "merged"))
    torch.testing.assert_close(oracle, dense_logits(made, tmp_path / "dense"), rtol=0, atol=1e-5)
    assert done.results.adapter is not None
    assert done.results.adapter.errors == {}


def modules_of(directory: Path) -> dict[str, Tensor]:
    """B · A of every module of an adapter whose scaling is 1."""
    tensors = load_file(directory / "adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {
        name.removeprefix("base_model.model."): tensors[f"{name}.lora_B.weight"].double()
        @ tensors[f"{name}.lora_A.weight"].double()
        for name in names
    }


@pytest.mark.parametrize(
    ("names", "method", "rank"),
    [
        (("lora",), "task_arithmetic", 2),
        (("lora",), "ties", None),
        (("lora",), "ties", 3),
        (("dora",), "task_arithmetic", 4),
        (("lora", "ia3"), "task_arithmetic", 30),
        (("ia3",), "linear", 5),
    ],
)
def test_recompressed_to_a_rank_with_the_error_reported(
    names: tuple[str, ...], method: str, rank: int | None, trained: Make, tmp_path: Path
) -> None:
    made, adapters = both(trained, *names)
    run(recipe(made.base, adapters, method), output=tmp_path / "dense")
    output = {"save_as": "adapter"} if rank is None else {"save_as": "adapter", "rank": rank}
    done = run(recipe(made.base, adapters, method, **output), output=tmp_path / "merged")
    assert done.results.adapter is not None
    errors = done.results.adapter.errors
    merged, base = load_file(tmp_path / "dense" / "model.safetensors"), load_file(made.base / "model.safetensors")
    written = modules_of(tmp_path / "merged")
    assert written.keys() == errors.keys()
    for module, product in written.items():
        tau = merged[f"{module}.weight"].double() - base[f"{module}.weight"].double()
        singular = torch.linalg.svdvals(tau)
        best = float(singular[rank or 4 :].norm() / singular.norm())
        assert errors[module] == pytest.approx(best, abs=1e-5)
        assert float((product - tau).norm() / tau.norm()) == pytest.approx(best, abs=1e-5)
    assert Lock.read(tmp_path / "merged").output.errors == errors
    events = [json.loads(line) for line in (tmp_path / "merged" / "run.jsonl").read_text().splitlines()]
    told = {event["module"]: event["error"] for event in events if event["event"] == "recompressed"}
    assert told == errors
    assert check(tmp_path / "merged")
    assert logits(made.peft(tmp_path / "merged")).isfinite().all()


def test_scales_are_merged_as_the_parameters_that_they_are(trained: Make, tmp_path: Path) -> None:
    """TIES on ℓ − 1, not on (ℓ − 1) ⊙ W: the vectors are what was trained."""
    made, adapters = both(trained, "ia3")
    run(recipe(made.base, adapters, {"name": "ties", "density": 0.5}, save_as="adapter"), output=tmp_path / "merged")
    files = [load_file(path / "adapter_model.safetensors") for path in adapters.values()]
    merged = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert merged.keys() == files[0].keys()
    vectors = {name: torch.ones_like(tensor) for name, tensor in merged.items()}
    expected = merge(vectors, dict(zip(adapters, files, strict=True)), "ties", density=0.5)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())


REFUSED = {
    "a scaled base": (("lora",), {"name": "linear", "normalize": False}, "changes the base itself"),
    "DoRA": (("dora",), "linear", r"v_proj.weight \(2 tensors\): DoRA of expert 'expert0' is no product of low rank"),
    "LoRA and IA3": (("lora", "ia3"), "linear", "IA3 of expert 'expert1' is no product of low rank"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_adapter_holds_is_refused_before_anything_is_merged(case: str, trained: Make) -> None:
    names, method, said = REFUSED[case]
    made, adapters = both(trained, *names)
    with pytest.raises(RecipeError, match=said) as error:
        plan(recipe(made.base, adapters, method, save_as="adapter"))
    assert "dense" in (error.value.hint or "")


def test_a_full_expert_in_the_mix_is_refused(trained: Make, tmp_path: Path) -> None:
    made, adapters = both(trained, "lora")
    run(recipe(made.base, {"one": adapters["expert1"]}, "task_arithmetic"), output=tmp_path / "full")
    mixed = {"lora": adapters["expert0"], "full": tmp_path / "full"}
    with pytest.raises(RecipeError, match="an adapter cannot hold this merge: full is no adapter on the base"):
        plan(recipe(made.base, mixed, "linear", save_as="adapter"))


def test_rank_is_of_an_adapter(trained: Make) -> None:
    made, adapters = both(trained, "lora")
    with pytest.raises(RecipeError, match="'rank' is that of an adapter"):
        plan(recipe(made.base, adapters, "linear", rank=4))


def test_a_dtype_is_that_of_the_adapter(trained: Make, tmp_path: Path) -> None:
    made, adapters = both(trained, "lora")
    output = {"save_as": "adapter", "dtype": "bfloat16"}
    planned = plan(recipe(made.base, adapters, "linear", **output))
    run(recipe(made.base, adapters, "linear", **output), output=tmp_path / "merged")
    tensors = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert planned.output_bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_a_merged_adapter_is_an_expert_again(trained: Make, tmp_path: Path) -> None:
    made, adapters = both(trained, "lora")
    run(recipe(made.base, adapters, WEIGHTS, save_as="adapter"), output=tmp_path / "first")
    again = {"one": tmp_path / "first", "two": trained("all linear", 3).adapter}
    run(recipe(made.base, again, {"name": "task_arithmetic", "scale": 1}), output=tmp_path / "dense")
    run(
        recipe(made.base, again, {"name": "task_arithmetic", "scale": 1}, save_as="adapter"), output=tmp_path / "second"
    )
    oracle = logits(made.peft(tmp_path / "second"))
    torch.testing.assert_close(oracle, dense_logits(made, tmp_path / "dense"), rtol=0, atol=1e-5)


def test_card_page_and_terminal_say_what_it_is(
    trained: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, adapters = both(trained, "lora")
    done = run(recipe(made.base, adapters, "ties", save_as="adapter", rank=2), output=tmp_path / "merged")
    print_result(done)
    card, page = ((tmp_path / "merged" / name).read_text() for name in ("README.md", "report.html"))
    said = "LoRA of rank 2 on 4 modules. 4 modules were recompressed to their rank, with a relative error of"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in page
    assert said in card
    assert "library_name: peft" in card
    assert 'PeftModel.from_pretrained(base, "path/to/this/directory")' in card


def test_a_coefficient_of_each_vector_is_one_of_weight_and_bias(trained: Make) -> None:
    """IA3 scales what a module gives, bias and all: coefficients that differ for the two are refused."""
    made, adapters = both(trained, "ia3, a head")
    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.open(made.base))
        matched = match(base, {name: open_expert(path, base, stack) for name, path in adapters.items()})
        choice = Choice(get("supermerge").bind())
        with pytest.raises(RecipeError, match="granularity tensor gives a bias a coefficient of its own"):
            adapter_layout(matched, choice, rank=None, learning=Learning("tensor", summed=True))
        layout = adapter_layout(matched, choice, rank=None, learning=Learning("module", summed=True))
        ends = ("key.weight", "value.weight", "output.dense.weight")
        assert set(layout.scales) == {name for name in matched.merged if name.endswith(ends)}
        with pytest.raises(RecipeError, match="makes of weights, not of scales"):
            adapter_layout(matched, choice, rank=None, learning=Learning("module", summed=False))
