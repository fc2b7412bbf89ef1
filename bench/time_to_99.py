"""How soon SuperMerge has 99 % of the score that it ends with: its defaults against plain Adam from 0.3.

    python bench/time_to_99.py text8
    python bench/time_to_99.py vision8

Both learn from the labels of one draw, as the rows supermerge_labels and supermerge_labels_0.3 of `bench/suite.py`, and
stop by themselves; every few steps the mean accuracy on development examples, in no other part, is taken. The final
score of a run is that of the weights it gives back before it refits. Seconds are CPU seconds on one thread from opening
the vectors on, the start's merge and the held-back measurements in, scoring and refitting out. Writes
`bench/results/time_to_99.SUITE.json`. `bench/suite.py SUITE prepare` and `train` come first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from suites.draw import recipe
from suites.tasks import SUITES
from supermerge.methods import get
from supermerge.resolve import settings_of
from supermerge.run.prepared import prepared
from sweep_supermerge import watched

RUNS: dict[str, dict[str, object]] = {"supermerge": {}, "plain Adam from 0.3": {"init": 0.3}}
SHARE = 0.99


def main() -> None:
    """Learn twice, and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--budget", type=int, default=32)
    parser.add_argument("--development", type=int, default=60, help="examples per task to score")
    parser.add_argument("--measure", type=int, default=2, help="score every so many steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = recipe(
        SUITES[arguments.suite],
        arguments.budget,
        arguments.draw,
        0,
        scored="development",
        most=arguments.development,
    )
    runs: dict[str, Any] = {}
    with prepared(wanted) as ready:
        for name, setting in RUNS.items():
            settings = settings_of(get("supermerge"), {**setting, "refit": False})
            assert settings is not None
            session = watched(ready, settings, arguments.measure)
            runs[name] = {
                "steps": len(session.calls) - 1,
                "best_step": min(range(len(session.calls)), key=session.calls.__getitem__),
                "final": round(session.score(), 5),
                "measured": session.measured,
            }
    ours = runs["supermerge"]["final"]
    for run in runs.values():
        run["to its own"] = reached(run["measured"], SHARE * run["final"])
        run["to supermerge's"] = reached(run["measured"], SHARE * ours)
    found = {"suite": arguments.suite, "draw": arguments.draw, "development": arguments.development, "runs": runs}
    target = Path(__file__).parent / "results" / f"time_to_99.{arguments.suite}.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, run in runs.items():
        print(name, {key: value for key, value in run.items() if key != "measured"})


def reached(measured: Sequence[dict[str, float]], score: float) -> dict[str, float] | None:
    """The first step that scores as much, and the CPU seconds until then; None if none does."""
    for row in measured:
        if row["score"] >= score:
            return {"step": row["step"], "cpu": row["cpu"]}
    return None


if __name__ == "__main__":
    main()
