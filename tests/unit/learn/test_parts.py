"""The small parts: links and their derivatives, groups, batches, objectives, schedules."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supermerge.checkpoint import Buffer
from supermerge.checkpoint.memory import MemoryStore
from supermerge.errors import RecipeError
from supermerge.learn.granularity import coefficient_shape, group_of
from supermerge.learn.links import link, link_names
from supermerge.learn.objectives import distillation, entropy, feature_distance, weighted_objectives
from supermerge.learn.sampling import batch_indices
from supermerge.learn.schedules import schedule
from supermerge.learn.task_vectors import TaskVectors


@pytest.mark.parametrize("name", link_names())
def test_the_derivative_of_a_link_is_autograds(name: str) -> None:
    w = torch.tensor([[-0.4, 0.2], [0.3, 1.3], [0.9, 0.0]], dtype=torch.float64, requires_grad=True)
    dc = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.1, 0.7]], dtype=torch.float64)
    found = link(name)
    found.apply(w).backward(dc)
    assert w.grad is not None
    torch.testing.assert_close(found.pull_back(w.detach(), dc), w.grad)


@pytest.mark.parametrize(("name", "value"), [("tanh", 0.3), ("tanh", -0.9), ("identity", 1.7), ("clamp", 1.0)])
def test_a_start_gives_the_coefficient_asked_for(name: str, value: float) -> None:
    found = link(name)
    w = torch.tensor([found.start(value)], dtype=torch.float64)
    assert found.apply(w).item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("name", "value"), [("tanh", 1.0), ("clamp", 1.2), ("clamp", -0.1)])
def test_a_start_out_of_reach_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"^$|expected|domain"):
        link(name).start(value)


class _Counting(MemoryStore):
    """Remembers the largest piece that was asked for."""

    largest = 0

    def read_flat(self, name: str, start: int, stop: int, *, buffer: Buffer | None = None) -> torch.Tensor:
        self.largest = max(self.largest, stop - start)
        return super().read_flat(name, start, stop, buffer=buffer)


@pytest.mark.parametrize("shape", [(3000, 1100), (2_500_000,), (7, 3), (5,), (), (0, 4)])
@pytest.mark.parametrize("by_row", [False, True])
def test_task_vectors_are_reduced_block_by_block(shape: tuple[int, ...], by_row: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    base, gradient = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    experts = {str(i): torch.randn(shape, generator=draw, dtype=torch.float64) for i in range(3)}
    sources = {name: _Counting(name, {"t": tensor}) for name, tensor in experts.items()}
    vectors = TaskVectors(MemoryStore("base", {"t": base}), sources, torch.float64)
    seen: list[int] = []
    for which, taus, products in vectors.reduced("t", vectors.base("t"), gradient, by_row=by_row):
        for i, tau, product in zip(range(3)[which], taus, products, strict=True):
            seen.append(i)
            expected = experts[str(i)] - base
            assert torch.equal(tau, expected)
            rows = torch.atleast_1d(gradient * expected).reshape(shape[0] if shape else 1, math.prod(shape[1:]))
            torch.testing.assert_close(product, rows.sum(1) if by_row else rows.sum())
    assert seen == [0, 1, 2]
    assert vectors.bytes_read == (base.nbytes, 3 * base.nbytes)
    assert all(source.largest <= 1 << 20 for source in sources.values())


def test_unknown_link() -> None:
    with pytest.raises(RecipeError, match="unknown link 'tan'"):
        link("tan")


@pytest.mark.parametrize(
    ("granularity", "group"),
    [
        ("model", "model"),
        ("layer", "bert.encoder.layer.3"),
        ("module", "bert.encoder.layer.3.attention.query"),
        ("tensor", "bert.encoder.layer.3.attention.query.weight"),
        ("row", "bert.encoder.layer.3.attention.query.weight"),
    ],
)
def test_groups(granularity: str, group: str) -> None:
    assert group_of("bert.encoder.layer.3.attention.query.weight", granularity) == group


def test_groups_outside_layers() -> None:
    assert group_of("embeddings.word.weight", "layer") == "embeddings"
    assert group_of("logit_scale", "module") == "logit_scale"
    assert group_of("h.0.ln.weight", "layer") == "h.0"


def test_coefficient_shapes() -> None:
    assert coefficient_shape(3, (5, 7), "row") == (3, 5)
    assert coefficient_shape(3, (), "row") == (3, 1)
    assert coefficient_shape(3, (5, 7), "tensor") == (3,)


@given(count=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 5))
def test_every_epoch_shows_every_example_once(count: int, size: int, seed: int) -> None:
    per_step = min(size, count)
    stream = [i for step in range(2 * count) for i in batch_indices(count, size, step, seed=seed, key="news")]
    assert len(stream) == 2 * count * per_step
    assert sorted(stream[:count]) == list(range(count))
    assert sorted(stream[count : 2 * count]) == list(range(count))


def test_batches_depend_on_seed_task_and_step() -> None:
    first = batch_indices(1000, 8, 0, seed=0, key="news")
    assert first == batch_indices(1000, 8, 0, seed=0, key="news")
    assert first != batch_indices(1000, 8, 1, seed=0, key="news")
    assert first != batch_indices(1000, 8, 0, seed=1, key="news")
    assert first != batch_indices(1000, 8, 0, seed=0, key="spam")


def test_entropy_of_worked_examples() -> None:
    assert entropy(torch.tensor([[0.0, 0.0]])).item() == pytest.approx(0.693147, abs=1e-6)
    assert entropy(torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.582203, abs=1e-6)


def test_distillation_is_zero_at_the_teacher_and_positive_elsewhere() -> None:
    teacher = torch.tensor([[1.0, -1.0, 0.5]])
    assert distillation(teacher + 3, teacher).item() == pytest.approx(0, abs=1e-6)
    # KL((½, ½) ‖ (¾, ¼)) = ½ log(4/3)
    student = torch.tensor([[0.75, 0.25]]).log()
    assert distillation(student, torch.zeros(1, 2)).item() == pytest.approx(0.143841, abs=1e-6)
    assert distillation(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item() == 4


def test_objectives() -> None:
    assert weighted_objectives("entropy") == {"entropy": 1.0}
    assert weighted_objectives({"cross_entropy": 1, "distill": 0.5}) == {"cross_entropy": 1, "distill": 0.5}
    with pytest.raises(RecipeError, match="unknown objective 'crossentropy'"):
        weighted_objectives("crossentropy")
    with pytest.raises(RecipeError, match=r"loss\.distill: expected a weight above 0, found -1"):
        weighted_objectives({"distill": -1})


def test_schedules() -> None:
    assert schedule("constant", 10) is None
    cosine = schedule("cosine", 10)
    assert cosine is not None
    assert [cosine(0), cosine(5), cosine(10)] == pytest.approx([1, 0.5, 0])


def test_the_distance_of_features_is_relative_to_the_experts() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    # ‖(0, 2)‖² / ‖(1, 0)‖² = 4 and ‖(1, 0)‖² / ‖(2, 0)‖² = ¼.
    teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert feature_distance(features, teacher).item() == pytest.approx((4 + 0.25) / 2)
    assert feature_distance(100 * features, 100 * teacher).item() == pytest.approx((4 + 0.25) / 2)
    assert feature_distance(features, torch.zeros(2, 2)).isfinite()
