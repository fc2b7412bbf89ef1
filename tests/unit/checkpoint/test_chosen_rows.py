from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from supermerge.checkpoint import Checkpoint, ChosenRows, Composed, MeanRow, runs

HERE = Checkpoint.open({"w": torch.arange(15.0).view(5, 3), "b": torch.arange(5.0)})
THERE = Checkpoint.open({"w": 100 + torch.arange(12.0).view(4, 3)})


@given(st.data())
def test_any_range_of_any_choice(data: st.DataObject) -> None:
    single = st.tuples(st.sampled_from([HERE, THERE]), st.just("w"), st.integers(0, 3))
    rows = data.draw(st.lists(st.lists(single, max_size=3).map(tuple), min_size=1, max_size=8))
    expected = torch.stack(
        [torch.stack([s.read("w")[i] for s, _, i in row]).mean(0) if row else torch.zeros(3) for row in rows]
    )
    view = ChosenRows(HERE, {"w": runs(rows)})
    assert view.tensors["w"].shape == (len(rows), 3)
    start = data.draw(st.integers(0, 3 * len(rows)))
    stop = data.draw(st.integers(start, 3 * len(rows)))
    torch.testing.assert_close(view.read_flat("w", start, stop), expected.view(-1)[start:stop])
    assert torch.equal(view.read("b"), HERE.read("b"))


def test_consecutive_rows_are_one_run() -> None:
    rows = [((HERE, "w", i),) for i in range(3)] + [((THERE, "w", 3),), (), ()]
    assert [(run.start, run.stop) for run in runs(rows)] == [(0, 3), (3, 4), (4, 6)]


def test_mean_row() -> None:
    assert torch.equal(MeanRow(HERE).read("w"), HERE.read("w").mean(0, keepdim=True))


def test_composed() -> None:
    view = Composed("both", {"x": (THERE, "w"), "y": (HERE, "b")})
    assert {name: info.shape for name, info in view.tensors.items()} == {"x": (4, 3), "y": (5,)}
    assert torch.equal(view.read("x", slice(1, 2)), THERE.read("w")[1:2])
    assert torch.equal(view.read_flat("y", 2, 4), torch.tensor([2.0, 3.0]))
