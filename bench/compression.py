"""What learning loses and saves when task vectors stay in memory compressed: bytes, error, time of a step, score.

    python bench/compression.py --steps 30

Four text experts of the demo, 32 labelled examples each, SuperMerge per tensor from 1/k without early stopping; only
`residency` differs. The model is merged from the experts' own files with the coefficients found, and scored on
development examples. One JSON list.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from demo_draws import draws
from supermerge.events import Event, subscribed
from supermerge.methods import get
from supermerge.methods.settings import LearnSettings
from supermerge.run.candidates import merged_in_memory
from supermerge.run.learned import basis_of, learn_merge
from supermerge.run.prepared import Prepared, prepared
from supermerge.tasks.evaluate import evaluate_source

RESIDENCIES = ("disk", "memory", "bf16", "int8", "tvq4", "tvq3", "tvq2", "rtvq")


def main() -> None:
    """Learn with every residency on the first draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--residencies", nargs="+", default=RESIDENCIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with draws([0], development=True, sets=["method=supermerge"]) as found, prepared(found[0].recipe) as ready:
        print(json.dumps([row(ready, residency, arguments.steps) for residency in arguments.residencies], indent=1))


def row(ready: Prepared, residency: str, steps: int) -> dict[str, Any]:
    """Learn with one residency, merge and score."""
    settings = LearnSettings.model_validate(
        {"steps": steps, "init": "average", "patience": None, "refit": False, "residency": residency}
    )
    notes: list[Event] = []
    started = time.process_time()
    with basis_of(ready, settings) as basis, subscribed(notes.append):
        learned = learn_merge(ready.session(None), get("supermerge"), settings, basis, None)
    seconds = time.process_time() - started
    kept = next((event.fields for event in notes if "nbytes" in event.fields), {})
    sources = ready.match.experts.values()
    exact = sum(source.tensors[name].nbytes for source in sources for name in ready.match.merged)
    scores = evaluate_source(
        ready.require_bench("scoring"),
        residency,
        merged_in_memory(learned.merge, ready.match, ready.recipe.seed),
        {task: rows.test for task, rows in ready.rows.items()},
    )
    return {
        "residency": residency,
        "vectors_mb": round(kept.get("nbytes", exact if residency == "memory" else 0) / 1e6, 1),
        "relative_error": kept.get("relative_error", 0.0),
        "cpu_s": round(seconds, 2),
        "read_mb": round(sum(learned.learned.bytes_read) / 1e6),
        "loss": round(learned.learned.history[-1].loss, 5),
        "score": round(statistics.mean(score.value for score in scores.values()), 4),
    }


if __name__ == "__main__":
    main()
