"""Learns in as many processes as there are, for `test_together.py`: `python learn_together.py DIRECTORY`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
import supermerge
from architectures import build, make_experts, state_of
from processes import leave
from supermerge.distributed import Peers, is_sharded, launched, united
from supermerge.learn.learn import Learned
from supermerge.learn.loop import EarlyStopping

# (architecture, whether FSDP2 shards it, settings); Llama's embeddings are tied, and no row number divides evenly.
CASES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "tensor": ("bert", True, {"granularity": "tensor"}),
    "row": ("llama", True, {"granularity": "row", "link": "identity"}),
    "layer": ("vit", True, {"granularity": "layer", "clip": 0.05}),
    "whole": ("bert", False, {"granularity": "tensor"}),
    "stopped": ("llama", False, {"granularity": "module", "link": "softmax"}),
}
STEPS = 5


def learned(case: str) -> Learned:
    """Of three items per step, so that processes have different numbers of them."""
    architecture, sharded, settings = CASES[case]
    model, loss, (one, other) = build(architecture)
    base = state_of(model)
    if sharded and launched():
        from torch.distributed.fsdp import fully_shard

        for layer in (module for module in model.modules() if isinstance(module, torch.nn.ModuleList)):
            for block in layer:
                fully_shard(block)
        fully_shard(model)
        assert all(is_sharded(parameter) for parameter in model.parameters())

    def batches() -> Iterator[list[tuple[str, torch.Tensor, float]]]:
        while True:
            yield [("a", one, 1.0), ("b", other, 0.5), ("b", one, 0.25)]

    def held_back(of: torch.nn.Module) -> float:
        return float(loss(of, "a", other))

    stopping = EarlyStopping(held_back, every=2, patience=4)
    return supermerge.learn(
        model, base, make_experts(base), batches(), loss, steps=STEPS, lr=0.05, early_stopping=stopping, **settings
    )


def main(directory: Path, peers: Peers) -> None:
    for case in CASES:
        found = learned(case)
        if peers.rank == 0:
            found.coefficients.save(directory / f"{case}.safetensors")
        told = [found.best_step, [[record.loss, record.held_back] for record in found.history]]
        (directory / f"{case}-{peers.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    with united() as peers:
        main(Path(sys.argv[1]), peers)
    leave()
