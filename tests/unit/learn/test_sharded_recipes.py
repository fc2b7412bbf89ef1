"""Recipes learned by several processes that hold the model together end with the coefficients of one process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
from learn_sharded import SETTINGS, learned

from processes import together
from supermerge.learn import Coefficients

TESTS = Path(__file__).parents[2]
SCRIPT = str(Path(__file__).with_name("learn_sharded.py"))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """BERTs that classify, each task with its head, and Llamas that generate."""
    root = tmp_path_factory.mktemp("recipes")
    spec = importlib.util.spec_from_file_location("make_tiny", TESTS.parent / "examples" / "tiny" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    tiny.make(root / "bert")
    (root / "llama").mkdir()
    make = TESTS / "unit" / "plan" / "make_large.py"
    subprocess.run([sys.executable, make, root / "llama", "48", "2", "2"], capture_output=True, check=True)
    return [root / "bert" / "recipe.yaml", root / "llama" / "recipe.yaml"]


def close(one: Coefficients, other: Coefficients) -> bool:
    return one.w.keys() == other.w.keys() and all(
        w.dtype == torch.float64 and torch.allclose(w, other.w[group], rtol=0, atol=1e-6) for group, w in one.w.items()
    )


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_coefficients_losses_and_stopping_are_those_of_one_process(
    recipes: list[Path], tmp_path: Path, size: int
) -> None:
    cases = [name for name in SETTINGS if name != "long"]
    ended = together((SCRIPT, str(tmp_path), *map(str, recipes)), tmp_path, size, CASES=" ".join(cases))
    assert ended.codes == [0] * size, ended.errors
    for recipe in recipes:
        for case in cases:
            alone, name = learned(recipe, SETTINGS[case]), f"{recipe.parent.name}-{case}"
            assert close(Coefficients.load(tmp_path / f"{name}.safetensors"), alone.coefficients), name
            told = [json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for rank in range(size)]
            assert all(each == told[0] for each in told), name
            best, history = told[0]
            assert best == alone.best_step
            for (loss, held_back), record in zip(history, alone.history, strict=True):
                assert loss == (record.loss if record.loss is None else pytest.approx(record.loss, rel=1e-9))
                assert held_back == (record.held_back and pytest.approx(record.held_back, rel=1e-9))


@pytest.mark.parametrize(
    ("before", "after"),
    [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow), pytest.param(4, 2, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_goes_on_with_another_number_of_processes(
    recipes: list[Path], tmp_path: Path, before: int, after: int
) -> None:
    arguments = (SCRIPT, str(tmp_path), str(recipes[0]))
    for case in ("long", "long-whole"):
        # A run of one process ends like a program that is interrupted, others tell each other.
        stopped = together(arguments, tmp_path, before, CASES=case, STOP="3")
        assert stopped.codes[0] == 0, stopped.errors
        assert list((tmp_path / case).glob("*.safetensors"))
        assert not list(tmp_path.glob(f"bert-{case}*"))
        ended = together(arguments, tmp_path, after, CASES=case)
        assert ended.codes == [0] * after, ended.errors
        alone = learned(recipes[0], SETTINGS["long"])
        assert close(Coefficients.load(tmp_path / f"bert-{case}.safetensors"), alone.coefficients), case
        # It did go on: the state knows the steps before, and no process repeated them.
        found = json.loads((tmp_path / f"bert-{case}-0.json").read_text())
        assert [loss for loss, _ in found[1]] == pytest.approx([record.loss for record in alone.history], rel=1e-9)
