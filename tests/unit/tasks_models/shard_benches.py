"""Compares sharded workbenches with whole ones, for `test_sharded.py`: `python shard_benches.py CASES`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from processes import leave
from supermerge.checkpoint import Checkpoint, match
from supermerge.distributed import is_sharded, united
from supermerge.tasks.spec import TaskSpec
from supermerge.tasks.workbench import Workbench


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def passed(bench: Workbench, inputs: dict[str, Tensor]) -> Tensor:
    """The logits of a forward pass, after a backward pass."""
    module: Any = bench.heads["task"].module
    logits = module(**inputs).logits
    logits.square().sum().backward()
    return logits.detach()


def compare(directory: Path, kind: Any, inputs: dict[str, Tensor]) -> None:
    # Experts of a mixture are multiplied together by a function that knows no float64.
    dtype, close = (torch.float64, 1e-12) if "mixtral" not in str(directory) else (torch.float32, 1e-4)
    with Checkpoint.open(directory / "base") as base, Checkpoint.open(directory / "expert") as expert:
        spec = TaskSpec(type=kind, expert="one", test="t.jsonl", max_length=6)
        benches = [
            Workbench(base, {"one": expert}, {"task": spec}, dtype=dtype, shard=shard) for shard in (False, True)
        ]
        inputs = {name: each.to(dtype) if each.is_floating_point() else each for name, each in inputs.items()}
        # Twice: blocks are gathered anew, and the second time with other weights.
        other = match(base, {"one": expert}).experts["one"]
        for source in (base, other):
            for bench in benches:
                bench.model.zero_grad()
                bench.load(source)
            alone, together = (passed(bench, inputs) for bench in benches)
            torch.testing.assert_close(together, alone, rtol=close, atol=close)
            theirs = dict(benches[1].model.named_parameters())
            for name, parameter in benches[0].model.named_parameters():
                assert torch.equal(whole(theirs[name]), parameter), name
                gradient = theirs[name].grad
                if parameter.grad is None:
                    assert gradient is None or not whole(gradient).any(), name
                else:
                    assert gradient is not None, name
                    torch.testing.assert_close(whole(gradient), parameter.grad, rtol=100 * close, atol=close, msg=name)
        # All of its matrices are sharded, but tied ones.
        tied = {id(p) for p in benches[1].model.parameters() if not is_sharded(p) and p.dim() > 1}
        assert len(tied) <= 1, directory
        bench = benches[1]
        bench.give_back()


if __name__ == "__main__":
    with united():
        for name, case in torch.load(sys.argv[1], weights_only=False).items():
            try:
                compare(*case)
            except Exception as error:
                raise AssertionError(name) from error
    leave()
