"""Commands that are wrong in themselves, outputs that cannot be, and learning that fails."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from case import QUERY, RUN, Case, nothing, recipe, weights

import supermerge
from supermerge.recipe import Recipe


def link_to_itself(tiny: Path) -> None:
    (tiny / "merged").symlink_to("merged")


def bare_lock(tiny: Path) -> None:
    (tiny / "base" / "recipe.lock.json").write_text(json.dumps({"format": 2}))


def filed_away(tiny: Path) -> None:
    """Examples that lie in the directory that is to be replaced, which holds a model and no lock."""
    (tiny / "merged").mkdir()
    (tiny / "merged" / "config.json").write_text("{}")
    (tiny / "data").rename(tiny / "merged" / "data")
    path = tiny / "recipe.yaml"
    path.write_text(path.read_text().replace("data/", "merged/data/"))


def worked_in(tiny: Path) -> None:
    """A merge with somebody's work in it."""
    supermerge.run(Recipe.load(tiny / "recipe.yaml", ["method=linear", "tasks={}"]))
    (tiny / "merged" / "gguf").mkdir()
    (tiny / "merged" / "gguf" / "model.gguf").write_bytes(b"GGUF")


CASES = [
    Case("an unknown command", nothing, 2, ("merge",), ("merge", "recipe.yaml")),
    Case("an unknown flag", nothing, 2, ("--fast",), ("run", "recipe.yaml", "--fast"), own_process=True),
    Case("a command without its recipe", nothing, 2, ("RECIPE",), ("run",)),
    Case("an unknown log format", nothing, 2, ("xml", "json"), ("run", "recipe.yaml", "--log-format", "xml")),
    Case("--set without a value", nothing, 2, ("--set", "key=value"), (*RUN, "--set", "method")),
    Case("--set below a number", nothing, 2, ("--set", "plain value"), (*RUN, "--set", "method.steps.x=1")),
    Case("--set with a broken value", nothing, 3, ("--set", "YAML"), (*RUN, "--set", "method.steps=[")),
    Case("--set of an unknown key", nothing, 3, ("memroy", "memory"), (*RUN, "--set", "memroy=1GB")),
    Case("evaluate without a recipe", nothing, 2, ("--recipe",), ("evaluate", "base")),
    Case(
        "evaluate a model that is not there",
        nothing,
        4,
        ("nowhere",),
        ("evaluate", "./nowhere", "--recipe", "recipe.yaml"),
    ),
    Case(
        "evaluate without test data",
        recipe(tasks__mood__test=None, tasks__topic__test=None),
        3,
        ("test",),
        ("evaluate", "base", "--recipe", "recipe.yaml"),
    ),
    Case("compare without methods", nothing, 2, ("--methods",), ("compare", "recipe.yaml", "--methods", ",")),
    Case("compare an unknown method", nothing, 3, ("tiess", "ties"), ("compare", "recipe.yaml", "--methods", "tiess")),
    Case(
        "compare without test data",
        recipe(tasks__mood__test=None, tasks__topic__test=None),
        3,
        ("test",),
        ("compare", "recipe.yaml", "--methods", "linear"),
    ),
    Case("inspect a file that is no model", nothing, 4, ("recipe.yaml", "weights"), ("inspect", "recipe.yaml")),
    Case(
        "inspect absurdly large values",
        weights(lambda w: w["embeddings.word_embeddings.weight"][3].fill_(1e25), "base"),
        4,
        ("base", "word_embeddings", "absurdly large"),
        ("inspect", "experts/mood", "--base", "base", "--json"),
    ),
    Case("verify a directory that no run wrote", nothing, 4, ("recipe.lock.json",), ("verify", "base")),
    Case("verify with a lock of another format", bare_lock, 4, ("recipe.lock.json", "format"), ("verify", "base")),
    Case("describe an unknown method", nothing, 3, ("tiess", "ties"), ("methods", "tiess")),
    Case("plan a recipe with a mistake", recipe(metod="ties"), 3, ("metod", "method"), ("plan", "recipe.yaml")),
    Case(
        "plan without the base",
        lambda t: shutil.rmtree(t / "base"),
        4,
        ("base",),
        ("plan", "recipe.yaml", "--json"),
        own_process=True,
    ),
    Case("the output exists", lambda t: (t / "merged").mkdir(), 5, ("merged", "--force")),
    Case(
        "--force over a directory of other things",
        lambda t: ((t / "merged").mkdir(), (t / "merged" / "thesis.txt").write_text("mine")),
        5,
        ("merged", "neither a model nor results"),
        (*RUN, "--force"),
    ),
    Case("--force over a file", lambda t: (t / "merged").write_text("mine"), 5, ("merged", "file"), (*RUN, "--force")),
    Case("--force over the base", nothing, 5, ("base", "reads"), (*RUN, "--force", "-o", "base")),
    Case("--force over the examples", filed_away, 5, ("merged/data", "reads"), (*RUN, "--force")),
    Case("--force over work in a merge", worked_in, 5, ("gguf/model.gguf", "no run wrote"), (*RUN, "--force")),
    Case("an output whose name is not UTF-8", nothing, 5, ("udcff", "UTF-8"), (*RUN, "-o", os.fsdecode(b"m\xff"))),
    Case("an output whose name has the byte 0", recipe(output={"path": "a\0b"}), 5, ("x00b", "byte 0"), RUN),
    Case("an output below a file", nothing, 5, ("recipe.yaml",), (*RUN, "-o", "recipe.yaml/merged")),
    Case("an output that is a link to itself", link_to_itself, 5, ("merged",)),
    Case("the root as the output", nothing, 5, ("/",), (*RUN, "--force", "-o", "/")),
    Case("a name too long for the disk", nothing, 5, ("xxx",), (*RUN, "-o", "x" * 250)),
    Case(
        "learning that diverges",
        recipe(method={"name": "supermerge", "link": "identity", "lr": 1e30, "steps": 20}),
        7,
        ("diverged", "last-good.safetensors"),
        own_process=True,
    ),
    Case(
        "a merge worse than its base",
        recipe(method={"name": "task_arithmetic", "scale": -2.0}),
        7,
        ("worse than the base", "merged.refused", "if_worse"),
    ),
    Case(
        "a value of if_worse that is none",
        recipe(if_worse="shrug"),
        3,
        ("if_worse", "fail", "warn"),
    ),
    Case(
        "a result too large for its dtype",
        lambda t: (
            weights(lambda w: w["encoder.layer.1.attention.self.query.weight"].fill_(7e4), "base")(t),
            weights(lambda w: w[QUERY].fill_(7e4 + 1))(t),
            weights(lambda w: w[QUERY].fill_(7e4 + 2), "experts/topic")(t),
            recipe(method="linear", tasks=None, output={"path": "merged", "dtype": "float16"})(t),
        ),
        7,
        ("does not fit", "float16"),
    ),
]
