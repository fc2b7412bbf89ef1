"""Statistics of experts that belong to others, are damaged, or cannot be measured or used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from case import RUN, Case, data, recipe

from supermerge.recipe import Recipe
from supermerge.resolve import opened
from supermerge.run.prepared import prepared
from supermerge.statistics.examples import chosen_rows
from supermerge.statistics.file import About, file_name, save
from supermerge.statistics.fingerprints import data_fingerprint, model_fingerprint


def kept(
    kind: str, tensors: dict[str, torch.Tensor], *, model: str | None = None, data: str | None = None
) -> Callable[[Path], object]:
    """Leave statistics beside both experts, measured on them (or on `model`) and on `data` (or the expert's own)."""

    def spoil(tiny: Path) -> None:
        with opened(Recipe.load(tiny / "recipe.yaml")) as sources:
            for expert, source in sources.match.experts.items():
                names = tuple(sources.match.merged)
                about = About(
                    kind=kind,
                    model=model or model_fingerprint(source, names),
                    data=data or expert * 8,
                    examples=32,
                    size=1.0,
                    inputs_first=(),
                    names=names,
                )
                save(tiny / "experts" / expert / "statistics" / file_name(kind, about.data), about, tensors)

    return spoil


def damaged(kind: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    """Leave statistics of ones (identities for a Gram matrix), those of one tensor changed."""
    good = torch.eye(32) if kind == "gram" else torch.ones(32, 32)
    return kept(kind, {QUERY: change(good)})


def first_is(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(value))


def of_other_examples(tiny: Path) -> None:
    """A file called as that of the examples at hand, which says that it was measured on others."""
    with prepared(Recipe.load(tiny / "recipe.yaml")) as ready:
        bench = ready.require_bench("the case")
        rows = chosen_rows("gram", bench, "topic", ready.statistics().rows, 0)
        right = data_fingerprint("gram", bench, rows, 0)
        source = ready.match.experts["topic"]
        names = tuple(name for name in bench.merged_names if name in source.tensors)
        about = About(
            kind="gram",
            model=model_fingerprint(source, names),
            data="f" * 64,
            examples=32,
            size=1.0,
            inputs_first=(),
            names=names,
        )
    save(tiny / "experts" / "topic" / "statistics" / file_name("gram", right), about, {"x": torch.ones(1)})


def flipped(tiny: Path) -> None:
    """The last byte of the statistics of both experts, changed by the disk they lie on."""
    kept("gram", {QUERY: torch.eye(32)})(tiny)
    for path in tiny.glob("experts/*/statistics/*"):
        raw = path.read_bytes()
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def all_of(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda tiny: [step(tiny) for step in steps]


def unlabelled(tiny: Path) -> None:
    """The mood task keeps its sentences and loses their labels."""
    shutil.copy(tiny / "data" / "mood.valid.jsonl", tiny / "data" / "mood.raw.jsonl")
    recipe(tasks__mood__validation=None, tasks__mood__unlabelled="data/mood.raw.jsonl")(tiny)


QUERY = "encoder.layer.0.attention.self.query.weight"
NO_TASKS = {"tasks": None}
NOT_POSITIVE = {QUERY: -torch.eye(32)}
FEW = all_of(
    data("topic.valid.jsonl", lambda _, rows: [rows[0], next(row for row in rows if row["label"] != rows[0]["label"])]),
    data("mood.valid.jsonl", lambda _, rows: [rows[0], next(row for row in rows if row["label"] != rows[0]["label"])]),
)
# What is done all the same, and said: (case, what makes it, the recipe's method, words of the warning).
WARNED = [
    (
        "fewer examples than classes",
        all_of(unlabelled, data("mood.raw.jsonl", lambda _, rows: rows[:1])),
        "regmean",
        ("tasks.mood: statistics of 1 examples say little about 2 classes",),
    ),
    (
        "Gram matrices that are singular together, with a ridge",
        FEW,
        "{name: regmean, keep: 1.0}",
        # Several tensors are warned of, in the order in which threads come to them.
        ("tensor 'encoder.layer.0.output.dense.weight'", "singular together", "ridge 1e-06 adds", "to every diagonal"),
    ),
]
CASES = [
    Case(
        "statistics with a bit that is not as it was written",
        all_of(recipe(method="regmean", **NO_TASKS), flipped),
        4,
        ("experts/topic/statistics/gram-", QUERY, "not as it was written"),
    ),
    Case(
        "statistics of another model",
        all_of(recipe(method="regmean", **NO_TASKS), kept("gram", {QUERY: torch.eye(32)}, model="0" * 64)),
        4,
        ("statistics/gram-", "another model", "0000000000000000", "delete"),
    ),
    Case(
        "statistics of other examples",
        all_of(recipe(method="regmean"), of_other_examples),
        6,
        ("experts/topic/statistics/gram-", "other examples", "ffffffffffffffff", "Delete"),
    ),
    Case(
        "statistics that are none",
        all_of(
            recipe(method="regmean", **NO_TASKS),
            kept("gram", {QUERY: torch.eye(32)}),
            lambda tiny: [
                shutil.copy(tiny / "experts" / "mood" / "model.safetensors", path)
                for path in tiny.glob("experts/mood/statistics/*")
            ],
        ),
        4,
        ("experts/mood/statistics/gram-", "not those of statistics", "Delete"),
    ),
    Case(
        "statistics with a NaN",
        all_of(recipe(method="regmean", **NO_TASKS), damaged("gram", first_is(float("nan")))),
        4,
        ("experts/topic/statistics/gram-", QUERY, "NaN", "Delete it"),
    ),
    Case(
        "statistics with a NaN, of single elements",
        all_of(recipe(method="fisher", **NO_TASKS), damaged("fisher_sampled", first_is(float("nan")))),
        4,
        ("experts/topic/statistics/fisher_sampled-", QUERY, "NaN", "Delete it"),
    ),
    Case(
        "a Fisher information below 0",
        all_of(recipe(method="fisher", **NO_TASKS), damaged("fisher_sampled", first_is(-1.0))),
        4,
        ("experts/topic/statistics/fisher_sampled-", QUERY, "below 0", "-1", "Delete it"),
    ),
    Case(
        "statistics of another shape",
        all_of(recipe(method="regmean", **NO_TASKS), damaged("gram", lambda tensor: tensor[1:])),
        4,
        ("experts/topic/statistics/gram-", QUERY, "[31, 32]", "[32, 32]", "Delete it"),
    ),
    Case(
        "statistics of a tensor that is not there",
        all_of(recipe(method="fisher", **NO_TASKS), kept("fisher_sampled", {"nobody.weight": torch.ones(2)})),
        4,
        ("experts/topic/statistics/fisher_sampled-", "nobody.weight", "Delete it"),
    ),
    Case(
        "logits that belong to no expert and task",
        all_of(
            recipe(method="sens_merging", **NO_TASKS),
            kept("sensitivity_empirical", {QUERY: torch.tensor(1.0)}),
            kept("alignment", {"[": torch.ones(3, 2)}, data="f" * 64),
        ),
        6,
        ("alignment", "'['", "not named after an expert and a task"),
    ),
    Case(
        "statistics of neither data nor a file",
        recipe(method="regmean", **NO_TASKS),
        6,
        ("expert 'topic'", "gram", "none lie beside it", "validation or unlabelled"),
    ),
    Case(
        "statistics of several sets of examples, and none of them at hand",
        all_of(
            recipe(method="regmean", **NO_TASKS),
            kept("gram", {QUERY: torch.eye(32)}),
            kept("gram", {QUERY: torch.eye(32)}, data="f" * 64),
        ),
        6,
        ("expert 'topic'", "2 files of them lie beside it", "leave one file"),
    ),
    Case(
        "answers of experts to different examples",
        all_of(
            recipe(method="sens_merging", **NO_TASKS),
            kept("sensitivity_empirical", {QUERY: torch.tensor(1.0)}),
            kept("alignment", {'["topic", "topic"]': torch.ones(3, 2)}),
        ),
        6,
        ("alignment of experts 'topic' and 'mood'", "different examples", "Delete both"),
    ),
    Case(
        "a merge that looks at examples, and there are none",
        recipe(method="regmean_plus_plus", **NO_TASKS),
        6,
        ("expert 'topic'", "regmean_plus_plus looks at examples", "use regmean"),
    ),
    Case(
        "Gram matrices that are singular together, and no ridge",
        all_of(FEW, recipe(method={"name": "regmean", "keep": 1.0, "ridge": 0})),
        6,
        ("tensor '", "Gram matrices", "singular together", "ridge"),
    ),
    Case(
        "conjugate gradients that cannot converge",
        all_of(
            recipe(method={"name": "mats", "subspace": "inputs"}, **NO_TASKS),
            kept("gram", NOT_POSITIVE),
        ),
        6,
        (f"tensor '{QUERY}'", "conjugate gradients do not converge", "delete and measure them again"),
    ),
    Case(
        "statistics with labels of a task without",
        all_of(unlabelled, recipe(method={"name": "fisher", "estimator": "empirical"})),
        6,
        ("tasks.mood", "fisher_empirical needs labelled examples", "estimator"),
    ),
    Case(
        "a loss with labels of a task without",
        unlabelled,
        6,
        ("mood", "label"),
        (*RUN, "--set", "method={name: supermerge, loss: cross_entropy}"),
    ),
]
