"""Coefficients that several processes learn together, sharded by FSDP2 or not, are those of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
from learn_together import CASES, learned

from processes import together
from supermerge.learn import Coefficients

SCRIPT = str(Path(__file__).with_name("learn_together.py"))


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_coefficients_losses_and_stopping_are_those_of_one_process(tmp_path: Path, size: int) -> None:
    ended = together((SCRIPT, str(tmp_path)), tmp_path, size)
    assert ended.codes == [0] * size, ended.errors
    for case in CASES:
        alone, found = learned(case), Coefficients.load(tmp_path / f"{case}.safetensors")
        assert found.w.keys() == alone.coefficients.w.keys()
        for group, w in alone.coefficients.w.items():
            assert w.dtype == torch.float64
            assert torch.allclose(found.w[group], w, rtol=0, atol=1e-6), (case, group, found.w[group] - w)
        told = [json.loads((tmp_path / f"{case}-{rank}.json").read_text()) for rank in range(size)]
        assert all(each == told[0] for each in told), case
        best, history = told[0]
        assert best == alone.best_step
        for (loss, held_back), record in zip(history, alone.history, strict=True):
            assert loss == (record.loss if record.loss is None else pytest.approx(record.loss, rel=1e-9))
            assert held_back == (record.held_back and pytest.approx(record.held_back, rel=1e-9))
