from __future__ import annotations

import pytest
import torch

from supermerge.methods import get


@pytest.fixture
def check():
    """Merge nested lists of numbers as one whole model and compare with the numbers expected."""

    def compare(method, params, base, taus, expected, tolerance=1e-6):
        numbers = [torch.tensor(values, dtype=torch.float32) for values in (base, taus, expected)]
        merged = get(method).bind(params).merge(numbers[0], numbers[1])
        assert torch.allclose(merged, numbers[2], rtol=0, atol=tolerance), merged

    return compare
