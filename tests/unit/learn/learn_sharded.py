"""Learns the tasks of recipes in as many processes as there are, for `test_sharded_recipes.py`.

`python learn_sharded.py DIRECTORY RECIPE…`, with the names of cases in CASES. With STOP=n the step after n is
interrupted; what is left in DIRECTORY is gone on with.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from processes import leave
from supermerge.checkpoint import Checkpoint, match
from supermerge.distributed import Peers, current, is_sharded, united
from supermerge.errors import ToldElsewhere
from supermerge.events import Event, subscribed
from supermerge.learn.basis import Basis
from supermerge.learn.learn import Learned
from supermerge.learn.session import Session
from supermerge.methods.settings import LearnSettings
from supermerge.recipe import Recipe
from supermerge.run.rows import read_task_rows
from supermerge.tasks.workbench import Workbench

SETTINGS = {
    "tensor": LearnSettings(steps=4, lr=0.05, init=0.3),
    "row": LearnSettings(steps=3, lr=0.05, init=0.2, granularity="row", link="identity"),
    "layer": LearnSettings(steps=3, lr=0.05, init=0.3, granularity="layer", clip=0.1, balance="worst"),
    "long": LearnSettings(steps=6, lr=0.05, init=0.3, patience=None, save_every=1e-9),
}


def learned(recipe: Path, settings: LearnSettings, states: Path | None = None, *, sharded: bool = True) -> Learned:
    """In float64; of several processes every one holds its part of the model where it is to be `sharded`."""
    wanted, shard = Recipe.load(recipe), sharded and current().size > 1
    with Checkpoint.open(wanted.base) as base:
        experts = {name: Checkpoint.open(expert.ref) for name, expert in wanted.experts.items()}
        bench = Workbench(base, experts, wanted.tasks, dtype=torch.float64, shard=shard)
        assert any(map(is_sharded, bench.model.parameters())) == shard
        rows = {task: rows.learning for task, rows in read_task_rows(wanted.tasks).items()}
        found = match(base, experts)
        found = replace(found, merged=[name for name in found.merged if name in set(bench.merged_names)])
        session = Session(bench, found, rows, wanted.seed, states, "one key")
        return session.learn(settings, Basis.of(settings, list(experts), found))


def interrupt(event: Event) -> None:
    """Like a Ctrl-C in the middle of a step."""
    if event.kind == "step" and event.fields["step"] == int(os.environ["STOP"]):
        raise KeyboardInterrupt


def main(directory: Path, recipes: list[Path], peers: Peers) -> None:
    for recipe in recipes:
        for case in os.environ["CASES"].split():
            name, sharded = case.removesuffix("-whole"), not case.endswith("-whole")
            found = learned(recipe, SETTINGS[name], directory / case, sharded=sharded)
            if peers.rank == 0:
                found.coefficients.save(directory / f"{recipe.parent.name}-{case}.safetensors")
            told = [found.best_step, [[record.loss, record.held_back] for record in found.history]]
            (directory / f"{recipe.parent.name}-{case}-{peers.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    with ExitStack() as stack:
        if "STOP" in os.environ:
            stack.enter_context(suppress(KeyboardInterrupt, ToldElsewhere))
            stack.enter_context(subscribed(interrupt))
        main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]], stack.enter_context(united()))
    leave()
