from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from peft_models import CASES, Trained, save_adapter, save_base


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Trained]:
    """`trained(name of a case, seed)`: its base, written once, and its adapter, by transformers and peft."""
    states: dict[Path, dict[str, Tensor]] = {}

    def make(name: str, seed: int = 1) -> Trained:
        case = copy.deepcopy(CASES[name])
        base, adapter = tmp_path / f"base-{case.model.__name__}", tmp_path / f"adapter-{seed}-{name.replace(' ', '-')}"
        if base not in states:
            states[base] = save_base(base, case.model)
        return save_adapter(Trained(base, adapter, case, states[base]), seed)

    return make
