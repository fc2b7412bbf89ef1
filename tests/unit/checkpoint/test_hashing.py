from __future__ import annotations

from pathlib import Path

import blake3
import pytest
import torch

from supermerge.checkpoint import hash_shard, hash_tensor, save_tensors


def test_known_hash_of_one_as_fp32() -> None:
    assert hash_tensor(torch.tensor([1.0])) == blake3.blake3(b"\x00\x00\x80\x3f").hexdigest()


def test_empty() -> None:
    assert hash_tensor(torch.zeros(0, 3)) == blake3.blake3(b"").hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_row_order_whatever_the_strides(dtype: torch.dtype) -> None:
    matrix = torch.arange(6).view(2, 3).to(dtype)
    assert hash_tensor(matrix.t().contiguous().t()) == hash_tensor(matrix)
    assert hash_tensor(matrix.t()) != hash_tensor(matrix) or dtype is torch.bool


def test_gradients_do_not_matter() -> None:
    assert hash_tensor(torch.ones(2, requires_grad=True)) == hash_tensor(torch.ones(2))


def test_a_file_and_its_tensors_in_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    # The first is longer than a piece, and ends inside one.
    tensors = {"a": torch.arange(300_001.0), "b": torch.ones(3, dtype=torch.int8), "c": torch.zeros(0)}
    hashes = save_tensors(path, tensors)
    assert hash_shard(path, {"b"}) == (blake3.blake3(path.read_bytes()).hexdigest(), hashes)
    assert hash_shard(path, {"d"}) is None
