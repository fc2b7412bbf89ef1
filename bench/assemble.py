"""What a merge without data costs, as whole processes: ours, the bare reading and writing, and mergekit's.

    python bench/assemble.py --methods task_arithmetic ties --mergekit /path/to/mergekit-yaml
    python bench/assemble.py --tensors 1803 --methods task_arithmetic

prints one JSON list, a row per method: seconds of CPU (user and system, of the process and its children), seconds on
the clock, peak memory. Models are built once into ~/.cache/supermerge/bench (see assemble_models.py). Ours runs
`supermerge run RECIPE --quiet`, with all that a run does: checks, hashes of every tensor, lock file, report. Runs are
paired (ours, mergekit, ours, mergekit); of each the quicker counts, and the larger memory. `floor_s` is the CPU time
of a process that reads and writes the same bytes and does nothing else.

With `--same-recipe` ours runs a third time in every pair, on the very file that mergekit runs, in mergekit's own
arithmetic (`mergekit_recipe_…`). What differs is most of all linear, which then has no base: four models are read in
place of five.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from assemble_methods import METHODS, mergekit_recipe, our_recipe

_HERE = Path(__file__).parent
_CACHE = Path.home() / ".cache" / "supermerge" / "bench"
_GOALS = ["task_arithmetic", "linear", "slerp", "model_stock", "dare", "ties", "ties_tensor", "della"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took."""

    cpu: float
    wall: float
    peak_rss: int


def main() -> None:
    """Measure every method asked for and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=_GOALS)
    parser.add_argument("--mergekit", type=Path, help="the mergekit-yaml executable of another environment")
    parser.add_argument("--same-recipe", action="store_true", help="run ours on mergekit's own recipe too")
    parser.add_argument("--tensors", type=int, help="merge this many tiny tensors instead of the Llama")
    parser.add_argument("--pairs", type=int, default=3, help="how often each of both runs")
    arguments = parser.parse_args()
    # As pip does when it installs: otherwise what is installed editably may be compiled anew by every process.
    compileall.compile_dir(str(files("supermerge")), quiet=2)
    models = _models(arguments.tensors)
    rows = [
        _row(method, models, arguments.mergekit, arguments.pairs, same_recipe=arguments.same_recipe)
        for method in arguments.methods
    ]
    print(json.dumps(rows, indent=1))


def _models(tensors: int | None) -> Path:
    directory = _CACHE / ("llama-271m" if tensors is None else f"tensors-{tensors}")
    # In a process of its own: what this one holds would count as the peak of those that it starts.
    size = [] if tensors is None else ["--tensors", str(tensors)]
    subprocess.run([sys.executable, _HERE / "assemble_models.py", directory, *size], check=True)
    return directory


def _row(method: str, models: Path, mergekit: Path | None, pairs: int, *, same_recipe: bool) -> dict[str, Any]:
    used = ["base", *our_recipe(method, models)["experts"]]
    files = [models / name / "model.safetensors" for name in used]
    ours, same, theirs, floors = [], [], [], []
    with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
        own, other = Path(scratch) / "recipe.yaml", Path(scratch) / "mergekit.yaml"
        own.write_text(json.dumps(our_recipe(method, models)), encoding="utf-8")
        other.write_text(json.dumps(mergekit_recipe(method, models)), encoding="utf-8")
        for _ in range(pairs):
            floors.append(_cost([sys.executable, _HERE / "assemble_floor.py", f"{scratch}/floor", *files]))
            ours.append(_cost(_our_command(own)))
            if same_recipe:
                same.append(_cost(_our_command(other)))
            if mergekit is not None:
                theirs.append(_cost(_mergekit_command(other, mergekit)))
    best, floor = _best(ours), _best(floors)
    row = {"method": method, "pairs": pairs, **_columns("", best)}
    row |= {"floor_s": round(floor.cpu, 2), "cpu_to_floor": round(best.cpu / floor.cpu, 2)}
    if same:
        row |= _columns("mergekit_recipe_", _best(same))
    if theirs:
        kit = _best(theirs)
        row |= {**_columns("mergekit_", kit), "cpu_to_mergekit": round(best.cpu / kit.cpu, 3)}
        if same:
            row["mergekit_recipe_cpu_to_mergekit"] = round(_best(same).cpu / kit.cpu, 3)
    return row


def _columns(prefix: str, cost: Cost) -> dict[str, float]:
    return {
        f"{prefix}cpu_s": round(cost.cpu, 2),
        f"{prefix}wall_s": round(cost.wall, 2),
        f"{prefix}peak_rss_mb": round(cost.peak_rss / 1e6),
    }


def _best(costs: list[Cost]) -> Cost:
    return Cost(min(c.cpu for c in costs), min(c.wall for c in costs), max(c.peak_rss for c in costs))


def _our_command(recipe: Path) -> list[str | Path]:
    command = [sys.executable, "-m", "supermerge", "run", recipe, "-o", recipe.with_name("ours")]
    return [*command, "--quiet", "--force", "--no-resume"]


def _mergekit_command(recipe: Path, mergekit: Path) -> list[str | Path]:
    # The models have no tokenizer.
    return [mergekit, recipe, recipe.with_name("mergekit"), "--no-copy-tokenizer", "--quiet"]


def _cost(command: list[str | Path]) -> Cost:
    """Run a command to its end; CalledProcessError, with all that it said, where it fails."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise subprocess.CalledProcessError(process.returncode, command)
    scale = 1 if sys.platform == "darwin" else 1024
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * scale)


if __name__ == "__main__":
    main()
