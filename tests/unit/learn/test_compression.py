"""Compressed task vectors: bits, codes, errors, and learning with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from toy import state, toy_batches, toy_experts, toy_loss, toy_model

from supermerge.checkpoint import Checkpoint
from supermerge.errors import CheckpointError
from supermerge.events import Event, subscribed
from supermerge.learn import learn
from supermerge.learn.compression import Coding, bits_per_number, compress
from supermerge.learn.compression.packing import pack, packed_bytes, unpack
from supermerge.learn.compression.quantised import Quantised

CODINGS: tuple[Coding, ...] = ("bf16", "int8", "tvq4", "tvq3", "tvq2", "rtvq")


def _loss(model: nn.Module, task: str, batch: tuple[Tensor, Tensor]) -> Tensor:
    return toy_loss(model, task, (batch[0].double(), batch[1]))


def _values(quantised: Quantised, count: int) -> Tensor:
    found = torch.empty(count)
    quantised.write(0, count, found)
    return found


@given(st.sampled_from([2, 3, 4, 8]), st.integers(0, 70), st.integers(0, 2**31))
def test_numbers_come_out_of_the_bytes_they_went_into(bits: int, count: int, seed: int) -> None:
    numbers = torch.randint(0, 1 << bits, (count,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack(numbers, bits)
    assert len(packed) == packed_bytes(count, bits) == -(-count // 8) * bits
    assert torch.equal(unpack(packed, bits)[:count].to(torch.uint8), numbers)


def test_the_papers_quantiser_by_hand() -> None:
    x = torch.tensor([-0.3, -0.1, 0.0, 0.2, 0.6])
    quantised = Quantised(x, 2)
    assert quantised.step == pytest.approx(0.3)
    assert quantised.zero == 1
    assert unpack(quantised._packed, 2)[:5].tolist() == [0, 1, 1, 2, 3]
    assert torch.allclose(_values(quantised, 5), torch.tensor([-0.3, 0.0, 0.0, 0.3, 0.6]))


def test_rtvq_by_hand() -> None:
    base = Checkpoint.open({"w": torch.tensor([1.0, 1, 3])}, label="base")
    experts = {
        "one": Checkpoint.open({"w": torch.tensor([1.0, 2, 4])}, label="one"),
        "two": Checkpoint.open({"w": torch.tensor([1.4, 1, 3])}, label="two"),
    }
    vectors, compression = compress(base, experts, ["w"], "rtvq")
    found = torch.empty(3)
    vectors["one"].write("w", 0, 3, found)
    assert torch.allclose(found, torch.tensor([-0.0190476, 0.9809524, 0.9809524]), atol=1e-6)
    # Eight numbers to a group: one byte for each bit, of what is shared and of both offsets.
    assert compression.nbytes == 3 + 2 * 2


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_number_is_further_off_than_a_step(bits: int) -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(bits))
    quantised = Quantised(values, bits)
    errors = (_values(quantised, 1001) - values).abs()
    inner = (values > values.min() + quantised.step) & (values < values.max() - quantised.step)
    assert float(errors.max()) <= quantised.step * 1.000001
    assert float(errors[inner].max()) <= quantised.step / 2 * 1.00001


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_is_exact(value: float) -> None:
    assert torch.equal(_values(Quantised(torch.full((9,), value), 2), 9), torch.full((9,), value))


def test_any_range_is_that_part_of_the_whole() -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(1))
    quantised = Quantised(values, 3)
    whole = _values(quantised, 100)
    for start, stop in ((0, 0), (3, 5), (7, 9), (8, 16), (13, 100)):
        part = torch.empty(stop - start)
        quantised.write(start, stop, part)
        assert torch.equal(part, whole[start:stop])


@pytest.mark.parametrize("coding", CODINGS)
def test_learning_sees_the_compressed_task_vectors(coding: Coding) -> None:
    model, options = toy_model().double(), {"steps": 8, "lr": 0.05}
    model._buffers.pop("count")
    base = {name: tensor for name, tensor in state(model).items() if tensor.is_floating_point()}
    experts = {name: {n: t.double() for n, t in e.items()} for name, e in toy_experts(base).items()}
    vectors, compression = compress(
        Checkpoint.open(base, label="base"),
        {name: Checkpoint.open(tensors, label=name) for name, tensors in experts.items()},
        base,
        coding,
        torch.float64,
    )
    restored = {}
    for expert, compressed in vectors.items():
        restored[expert] = {}
        for name, tensor in base.items():
            tau = torch.empty(tensor.numel(), dtype=torch.float64)
            compressed.write(name, 0, tensor.numel(), tau)
            restored[expert][name] = tensor + tau.view(tensor.shape)
    notes: list[Event] = []
    with subscribed(notes.append):
        found = learn(model, base, experts, toy_batches(), _loss, residency=coding, **options)
    same = learn(model, base, restored, toy_batches(), _loss, **options)
    for group, w in same.coefficients.w.items():
        assert torch.allclose(found.coefficients.w[group], w, rtol=0, atol=1e-9)
    assert compression.relative_error > 0
    said = " ".join(str(event.fields.get("message")) for event in notes)
    assert f"kept as {coding}" in said
    assert f"relative error is {compression.relative_error:.2g}." in said


def test_fewer_bits_are_further_off_and_smaller() -> None:
    base = {"w": torch.zeros(64, 64)}
    draw = torch.Generator().manual_seed(0)
    common = torch.randn(64, 64, generator=draw)
    experts = {str(i): {"w": common + 0.2 * torch.randn(64, 64, generator=draw)} for i in range(4)}
    opened = {name: Checkpoint.open(tensors, label=name) for name, tensors in experts.items()}
    errors, sizes = [], []
    for coding in ("bf16", "int8", "tvq4", "tvq3", "tvq2"):
        _, compression = compress(Checkpoint.open(base, label="base"), opened, ["w"], coding)
        errors.append(compression.relative_error)
        sizes.append(compression.nbytes)
        assert compression.nbytes == 4 * 64 * 64 * bits_per_number(coding, 4) / 8
    assert errors == sorted(errors)
    assert sizes == sorted(sizes, reverse=True)
    # What the experts share is kept once, in three bits: far closer than two bits for each.
    _, shared = compress(Checkpoint.open(base, label="base"), opened, ["w"], "rtvq")
    assert shared.relative_error < errors[-1] / 2
    assert shared.nbytes == 4 * 64 * 64 * (2 + 3 / 4) / 8


def test_damaged_experts_are_refused_by_name() -> None:
    base = Checkpoint.open({"w": torch.zeros(4)}, label="base")
    expert = Checkpoint.open({"w": torch.tensor([0.0, torch.nan, 0, 0])}, label="bad")
    with pytest.raises(CheckpointError, match=r"bad: tensor 'w' has 1 values"):
        compress(base, {"bad": expert}, ["w"], "tvq4")
