from __future__ import annotations

import pytest
import torch

from supermerge.checkpoint import Buffer, Checkpoint, Renamed, TensorInfo
from supermerge.errors import CheckpointError

SOURCE = Checkpoint.open({"bert.a": torch.arange(6.0).view(3, 2), "bert.b": torch.ones(2)}, label="news")


def test_reads_under_new_names() -> None:
    view = Renamed(SOURCE, {"a": "bert.a", "alias": "bert.a"})
    assert view.label == "news"
    assert dict(view.tensors) == {name: TensorInfo(name, torch.float32, (3, 2)) for name in ("a", "alias")}
    assert torch.equal(view.read("alias", slice(1, 2), buffer=Buffer()), torch.tensor([[2.0, 3.0]]))
    assert torch.equal(view.read_flat("a", 4, 6), torch.tensor([4.0, 5.0]))
    assert view.bytes_read == SOURCE.bytes_read


def test_other_names_are_not_seen() -> None:
    view = Renamed(SOURCE, {"a": "bert.a"})
    for read in (lambda: view.read("bert.a"), lambda: view.read_flat("bert.a", 0, 1)):
        with pytest.raises(CheckpointError, match=r"news: there is no tensor 'bert\.a' among its 1"):
            read()


def test_a_stored_name_must_exist() -> None:
    with pytest.raises(CheckpointError, match="there is no tensor 'gone'"):
        Renamed(SOURCE, {"a": "gone"})
