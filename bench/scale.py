"""How memory, bytes and seconds grow with the number of experts and with the size of the model.

    python bench/scale.py --sizes 20M 80M --experts 2 8 64

Llamas from config, random, fp32; experts are the base plus noise. Every row is a whole process: `linear` without data,
`supermerge` learning two steps on two tasks (init 0.3, nothing held back). Models are kept in the cache until --clean.
One JSON list.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from supermerge.cache import cache_directory

MAKE = Path(__file__).parents[1] / "tests" / "unit" / "plan" / "make_large.py"
SHAPES = {"5M": (256, 8), "20M": (512, 8), "80M": (1024, 8), "250M": (1024, 24), "1B": (2048, 24)}
"""Width and layers."""
MEASURED = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"cpu_s": round(used.ru_utime + used.ru_stime, 2), "peak_rss_mb": round(used.ru_maxrss / 1000)}))
"""


def main() -> None:
    """Measure every size with every number of experts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["20M", "80M"])
    parser.add_argument("--experts", nargs="+", type=int, default=[2, 8, 64])
    parser.add_argument("--clean", action="store_true", help="delete the models afterwards")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        place = models(size, max(arguments.experts))
        for experts in arguments.experts:
            rows += [row(place, size, experts, learned=learned) for learned in (False, True)]
            sys.stderr.write(f"{json.dumps(rows[-2:])}\n")
        if arguments.clean:
            shutil.rmtree(place)
    print(json.dumps(rows, indent=1))


def models(size: str, experts: int) -> Path:
    """The directory with a base, at least so many experts, and data."""
    place = cache_directory() / "bench" / f"scale-{size}-{experts}"
    if not place.exists():
        staging = place.with_name(f"{place.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        width, layers = SHAPES[size]
        command = [sys.executable, MAKE, staging, str(width), str(layers), str(experts)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        staging.rename(place)
    return place


def row(place: Path, size: str, experts: int, *, learned: bool) -> dict[str, Any]:
    """One run in a process of its own."""
    recipe = yaml.safe_load((place / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["experts"] = {f"e{i}": f"e{i}" for i in range(experts)}
    if not learned:
        recipe = {"base": "base", "experts": recipe["experts"], "method": "linear", "output": recipe["output"]}
    file = place / "scale.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run = [str(Path(sys.executable).with_name("supermerge")), "run", str(file), "--quiet", "--force", "--no-resume"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *run], check=True, capture_output=True, text=True)
    cost = json.loads((place / "merged" / "metrics.json").read_text(encoding="utf-8"))["cost"]
    model = (place / "base" / "model.safetensors").stat().st_size
    return {
        "size": size,
        "model_mb": round(model / 1e6),
        "experts": experts,
        "learned": learned,
        **json.loads(done.stdout),
        "wall_s": round(sum(phase["seconds"] for phase in cost["phases"]), 1),
        "read_mb": round(cost["bytes_read"] / 1e6),
        "written_mb": round(cost["bytes_written"] / 1e6),
    }


if __name__ == "__main__":
    main()
