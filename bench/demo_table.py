"""The demo's table over several draws of labelled examples: which merge is best, and by how much.

    python bench/demo_table.py --seeds 0 1 2 --methods linear task_arithmetic ties supermerge

prints one JSON object per seed and model, then the means over the seeds. Every method has the same 32 labelled examples
per task: to learn from, or to tune its scale on. Scores are on the demo's test examples, which choose nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from demo_draws import draws
from supermerge import compare


def main() -> None:
    """Compare on every draw and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, default=32, help="labelled examples per task")
    parser.add_argument("--methods", nargs="+", default=["linear", "task_arithmetic", "ties", "supermerge"])
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe")
    parser.add_argument("--development", action="store_true", help="score on development examples, to choose settings")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    means: dict[str, list[float]] = {}
    rows = []
    chosen = draws(arguments.seeds, budget=arguments.budget, development=arguments.development, sets=arguments.set)
    with chosen as found:
        for draw in found:
            with TemporaryDirectory() as scratch:
                results = compare(draw.recipe, arguments.methods, output=Path(scratch) / "comparison").results
            experts = {task: s.value for m in results.models if m.kind == "expert" for task, s in m.scores.items()}
            rows.append({"seed": draw.seed, "model": "experts", "mean": statistics.mean(experts.values()), **experts})
            for model in results.models:
                if model.kind == "expert":
                    continue
                scores = {task: score.value for task, score in model.scores.items()}
                rows.append(
                    {
                        "seed": draw.seed,
                        "model": model.label,
                        "mean": model.mean,
                        "normalised": model.normalised,
                        "seconds": model.seconds,
                        "scale": model.settings.get("scale"),
                        **scores,
                    }
                )
            for row in rows[-len(results.models) :]:
                sys.stderr.write(f"{json.dumps(row)}\n")
    for row in rows:
        means.setdefault(str(row["model"]), []).append(float(row["mean"]))
    summary = {name: {"mean": statistics.mean(values), "of_seeds": values} for name, values in means.items()}
    print(json.dumps({"rows": rows, "means": summary}, indent=1))


if __name__ == "__main__":
    main()
