"""How SuperMerge's settings change what it learns from a few labelled examples: the ground for its defaults.

    python bench/sweep_supermerge.py --seeds 0 1 --settings '{}' '{"lr": 0.05}' '{"granularity": "layer"}'

For every setting and draw of labelled examples (see demo_draws.py) it learns on all but the held-back part, without
stopping, and prints the mean held-back loss and the mean score on 256 development examples per task along the way. Test
examples take no part. One JSON object per measurement.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field

import torch

from demo_draws import draws
from supermerge.events import muted
from supermerge.learn.batches import Batches, Material
from supermerge.learn.session import Session
from supermerge.methods.settings import LearnSettings
from supermerge.run.learned import basis_of
from supermerge.run.prepared import Prepared, prepared
from supermerge.tasks.evaluate import evaluate


def main() -> None:
    """Learn with every setting on every draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--measure", type=int, default=10, help="score the development examples every so many steps")
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe, as for supermerge run")
    parser.add_argument("--settings", nargs="+", type=json.loads, default=[{}])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with draws(arguments.seeds, budget=arguments.budget, development=True, sets=arguments.set) as found:
        for draw in found:
            with prepared(draw.recipe) as ready:
                for setting in arguments.settings:
                    settings = LearnSettings(
                        **{"steps": arguments.steps, "patience": arguments.steps, "refit": False, **setting}
                    )
                    for row in trajectory(ready, settings, arguments.measure):
                        print(json.dumps({"seed": draw.seed, **setting, **row}), flush=True)


def trajectory(ready: Prepared, settings: LearnSettings, every: int) -> list[dict[str, float]]:
    """Held-back loss and development score every `every` steps, and the CPU seconds until then, without scoring."""
    return watched(ready, settings, every).measured


def watched(ready: Prepared, settings: LearnSettings, every: int) -> Watched:
    """The session after it has learned; its workbench has the weights of the best step."""
    plain = ready.session(None)
    session = Watched(plain.bench, plain.match, plain.rows, plain.seed, ready=ready, every=every)
    with basis_of(ready, settings) as basis:
        session.learn(settings, basis)
    return session


@dataclass(frozen=True)
class Watched(Session):
    """A session that scores the development examples at some of its held-back measurements."""

    ready: Prepared | None = None
    every: int = 10
    started: float = field(default_factory=time.process_time)
    calls: list[float] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)
    scoring: list[float] = field(default_factory=list)
    """CPU seconds of every scoring."""

    def held_back_loss(self, batches: Batches, held_back: Material) -> float:
        """As it is, written down together with the score where it is time."""
        loss = super().held_back_loss(batches, held_back)
        if len(self.calls) % self.every == 0:
            cpu = round(time.process_time() - self.started - sum(self.scoring), 1)
            self.measured.append({"step": len(self.calls), "held_back": loss, "score": self.score(), "cpu": cpu})
        self.calls.append(loss)
        return loss

    def score(self) -> float:
        """The mean over the tasks of the weights on the workbench, on the development examples."""
        assert self.ready is not None
        before = time.process_time()
        with muted(), torch.no_grad():
            scores = [evaluate(self.bench, task, rows.test).value for task, rows in self.ready.rows.items()]
        self.scoring.append(time.process_time() - before)
        return statistics.mean(scores)


if __name__ == "__main__":
    main()
