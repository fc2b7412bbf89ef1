"""With a CUDA device, which is only pretended here, work is done on it, and gives what the CPU gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
import supermerge
from pretended import DEVICE, NAME, Away, pretended_device
from supermerge.accelerator import CPU, accelerator, computed, reproducible
from supermerge.methods import Context, get, names
from supermerge.tasks.workbench import Workbench

METHODS = (
    {"name": "supermerge", "steps": 3},
    {"name": "regmean"},
    pytest.param({"name": "supermerge", "steps": 3, "granularity": "row", "loss": "distill"}, marks=pytest.mark.slow),
    pytest.param({"name": "supermerge", "steps": 3, "link": "softmax", "init": "average"}, marks=pytest.mark.slow),
    pytest.param({"name": "fisher"}, marks=pytest.mark.slow),
    pytest.param({"name": "mats"}, marks=pytest.mark.slow),
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_a_run_on_the_device_gives_the_bytes_of_the_cpu(
    method: dict[str, Any], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny)
    recipe = yaml.safe_load(Path("recipe.yaml").read_text()) | {"method": method, "if_worse": "warn"}
    recipe.pop("output", None)
    supermerge.run(recipe, output="here")
    seen: set[torch.device] = set()
    places = Workbench.places

    def watched(bench: Workbench, task: str, batch: Any) -> Any:
        found = places(bench, task, batch)
        seen.add(found[0].device)
        return found

    monkeypatch.setattr(Workbench, "places", watched)
    with pretended_device():
        planned = supermerge.plan(recipe, output="there")
        supermerge.run(recipe, output="there")
    assert seen == {DEVICE}
    assert f"tasks are computed on {NAME}" in planned.notes
    assert json.loads(Path("there/recipe.lock.json").read_text())["versions"]["device"] == NAME
    assert Path("there/model.safetensors").read_bytes() == Path("here/model.safetensors").read_bytes()


def test_a_model_that_does_not_fit_into_the_device_stays_here(tiny: Path) -> None:
    with pretended_device(free=10_000):
        assert accelerator(10_000) == DEVICE
        assert accelerator(10_001) == CPU
        assert not any("computed on" in note for note in supermerge.plan(tiny / "recipe.yaml").notes)


def test_without_a_device_everything_is_here() -> None:
    rows = torch.ones(2, 2)
    assert accelerator() == CPU
    assert computed(lambda given: given, rows, 0) is rows


def test_work_on_a_device_is_reproducible_and_leaves_no_trace() -> None:
    def settings() -> tuple[bool, bool, bool]:
        cuda, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return torch.are_deterministic_algorithms_enabled(), cuda, cudnn

    before = settings()
    with reproducible(CPU):
        assert settings() == before
    with reproducible(DEVICE):
        assert settings() == (True, False, False)
    assert settings() == before


def whole_tensor_methods() -> list[str]:
    """Those that see whole tensors, without statistics."""
    bound = {name: get(name).bind() for name in names() if get(name).function is not None}
    return [name for name, one in bound.items() if not one.chunked and not one.kinds]


@pytest.mark.parametrize("name", whole_tensor_methods())
def test_methods_that_see_whole_tensors_compute_on_the_device(name: str) -> None:
    method, draw = get(name), torch.Generator().manual_seed(0)
    base = torch.randn(12, 8, generator=draw)
    taus = 0.1 * torch.randn(min(3, method.most or 3), 12, 8, generator=draw)
    bound = method.bind()
    context = Context("layer.weight", (12, 8), tuple("abc"[: len(taus)]), 0)
    survey = bound.surveyed(base, taus, context)
    seen: list[bool] = []

    def merged(rows: torch.Tensor) -> torch.Tensor:
        found = bound(rows[0], rows[1:], context, survey)
        seen.append(isinstance(found, Away))
        return found

    rows = torch.stack([base, *taus])
    with pretended_device():
        found = computed(merged, rows, 0)
    assert seen == [True]
    assert torch.equal(found, merged(rows))


def test_a_streamed_merge_uses_the_device(tiny: Path) -> None:
    recipe = yaml.safe_load((tiny / "recipe.yaml").read_text())
    base, experts = str(tiny / recipe["base"]), {name: str(tiny / path) for name, path in recipe["experts"].items()}
    here = supermerge.merge(base, experts, method="iso_c")
    with pretended_device():
        there = supermerge.merge(base, experts, method="iso_c")
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
