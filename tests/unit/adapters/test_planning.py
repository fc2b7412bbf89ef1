"""A plan says which tensors are learned as factors, and why others are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from dense_models import dense
from peft_models import Trained

from supermerge import plan
from supermerge.cli.plan_view import print_plan
from supermerge.plan import Plan

Make = Callable[..., Trained]


def planned(base: Path, *experts: Path, **method: Any) -> Plan:
    named = {f"expert{i}": str(path) for i, path in enumerate(experts)}
    return plan({"base": str(base), "experts": named, "method": {"name": "supermerge", "steps": 7, **method}})


def learning(found: Plan) -> tuple[int, int]:
    """(bytes read, bytes held beside the process and the model)."""
    phases = {phase.name: phase for phase in found.phases}
    return phases["learn"].reads, phases["learn"].holds


def test_factors_are_read_once_and_held(trained: Make) -> None:
    one, two = trained("all linear", 1), trained("all linear", 2)
    found = planned(one.base, one.adapter, two.adapter)
    count = len(load_file(one.base / "model.safetensors"))
    # q, k, v, o, gate, up and down of two layers.
    assert found.learned_as == {"factors": 14, "task_vectors": 0, "unchanged": count - 14}
    factors = 2 * sum(tensor.nbytes for tensor in load_file(one.adapter / "adapter_model.safetensors").values())
    base = sum(tensor.nbytes for tensor in load_file(one.base / "model.safetensors").values())
    assert learning(found)[0] == base + factors
    more = planned(one.base, one.adapter, two.adapter, steps=700)
    assert learning(more)[0] == base + factors
    assert not [note for note in found.notes if "dense" in note]


def test_a_full_expert_makes_all_task_vectors_dense(trained: Make, tmp_path: Path) -> None:
    one, two = trained("all linear", 1), trained("all linear", 2)
    full = dense(two.base, two.adapter, tmp_path / "full")
    found = planned(one.base, one.adapter, full)
    assert found.learned_as is not None
    assert found.learned_as["factors"] == 0
    assert "expert1: no adapter on the base, so all task vectors are dense" in found.notes
    assert learning(found)[1] > learning(planned(one.base, one.adapter))[1]


@pytest.mark.parametrize(
    ("name", "method", "note"),
    [
        ("dora", {}, "4 tensor(s) learned as dense task vectors: DoRA scales by norms, which are no factors"),
        ("modules to save", {}, "1 tensor(s) learned as dense task vectors: trained whole"),
        (
            "ia3",
            {"granularity": "row"},
            "2 tensor(s) learned as dense task vectors: IA3 scales their columns, and coefficients or other experts "
            "their rows",
        ),
    ],
)
def test_what_is_no_factor_is_said(name: str, method: dict[str, Any], note: str, trained: Make) -> None:
    made = trained(name, 1)
    found = planned(made.base, made.adapter, **method)
    assert note in found.notes
    assert found.learned_as is not None
    assert found.learned_as["task_vectors"] >= int(note.split()[0])


def test_factors_larger_than_the_tensor_are_not_used(trained: Make) -> None:
    made = [trained("lora", seed).adapter for seed in range(1, 5)]
    base = trained("lora", 1).base
    assert not [note for note in planned(base, *made[:2]).notes if "factors" in note]
    found = planned(base, *made)
    # v_proj is [8, 16]: four ranks of 2 make 192 numbers for its 128. q_proj is [16, 16]: 256 for 256.
    assert "2 tensor(s) learned as dense task vectors: the factors of all experts are larger than the tensor" in (
        found.notes
    )
    assert found.learned_as is not None
    assert (found.learned_as["factors"], found.learned_as["task_vectors"]) == (2, 2)


def test_the_command_says_it(trained: Make, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = trained("all linear", 1), trained("both biases", 2)
    print_plan(planned(one.base, one.adapter, two.adapter))
    shown = " ".join(capsys.readouterr().out.split())
    assert "14 tensors from the adapters' factors, beside a frozen base, 4 from dense task vectors on disk" in shown
