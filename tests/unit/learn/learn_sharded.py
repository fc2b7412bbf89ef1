"""Learns recipes' tasks in as many processes as there are, for `test_sharded_recipes.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from supermerge.checkpoint import Checkpoint, match
from supermerge.distributed import Peers, current, is_sharded, united
from supermerge.learn.basis import Basis
from supermerge.learn.learn import Learned
from supermerge.learn.session import LearningRows, Session
from supermerge.methods.settings import LearnSettings
from supermerge.recipe import Recipe
from supermerge.run.rows import read_task_rows
from supermerge.tasks.workbench import Workbench

SETTINGS = {
    "tensor": LearnSettings(steps=4, lr=0.05, init=0.3),
    "row": LearnSettings(steps=3, lr=0.05, init=0.2, granularity="row", link="identity"),
    "worst": LearnSettings(steps=3, lr=0.05, init=0.3, granularity="layer", balance="worst", clip=0.1),
}


def learned(recipe: Path, settings: LearnSettings) -> Learned:
    """In float64, sharded where there are several processes."""
    wanted = Recipe.load(recipe)
    base = Checkpoint.open(wanted.base)
    experts = {name: Checkpoint.open(expert.ref) for name, expert in wanted.experts.items()}
    bench = Workbench(base, experts, wanted.tasks, dtype=torch.float64, shard=current().size > 1)
    if current().size > 1:
        large = [name for name, p in bench.model.named_parameters() if p.dim() > 1 and not is_sharded(p)]
        assert all("embed" in name or "shared" in name for name in large), large
        assert sum(map(is_sharded, bench.model.parameters())) > 10
    rows = {task: rows.learning for task, rows in read_task_rows(wanted.tasks).items()}
    found = match(base, experts)
    merged = [name for name in found.merged if name in set(bench.merged_names)]
    session = Session(bench, replaced(found, merged), rows, wanted.seed)
    return session.learn(settings, Basis.of(settings, list(experts), session.match))


def replaced(found, merged):  # noqa
    from dataclasses import replace

    return replace(found, merged=merged)


def main(directory: Path, recipes: list[Path], peers: Peers) -> None:
    for recipe in recipes:
        for name, settings in SETTINGS.items():
            found = learned(recipe, settings)
            if peers.rank == 0:
                found.coefficients.save(directory / f"{recipe.parent.name}-{name}.safetensors")
            told = [found.best_step, [[record.loss, record.held_back] for record in found.history]]
            (directory / f"{recipe.parent.name}-{name}-{peers.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    with united() as peers:
        main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]], peers)
