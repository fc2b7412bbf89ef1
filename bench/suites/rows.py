"""The rows of the table: how each model is made. The order is the order in which cells are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from suites.learned import learned, learned_each, one_by_one
from suites.static import Made, Tuning, scaled, tuned
from supermerge.run.prepared import Prepared

Kind = Literal["base", "expert", "multitask", "static", "control"]


UNLABELLED = 256
"""Inputs per task, or as many as there are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the table.

    `make` gives a merge, `tune` merges of which the labelled examples choose one, for several budgets at once where
    wanted; base, experts, multi-task model and controls are made by `cell.py` itself. `labels` says whether the draw's
    labelled examples play a part, `unlabelled` how many unlabelled inputs per task do. A `candidate` is a variant of
    supermerge that learns from unlabelled inputs alone, so that all labels are left to choose by.
    """

    name: str
    kind: Kind = "static"
    make: Callable[[Prepared], Made] | None = None
    tune: Callable[[Prepared], Tuning] | None = None
    labels: bool = True
    unlabelled: int = 0
    candidate: bool = False


def _distilled(name: str, unlabelled: int = UNLABELLED, **settings: object) -> Row:
    params = {"loss": "distill", "patience": None, **settings}
    return Row(
        name,
        make=partial(_learned, params=params),
        labels=False,
        unlabelled=unlabelled,
        candidate=True,
    )


def _labels(name: str, **settings: object) -> Row:
    return Row(name, make=partial(_learned, params=settings))


def _learned(ready: Prepared, params: Mapping[str, object]) -> Made:
    return learned(ready, "supermerge", params)[0]


def _grid(name: str, parameter: str, values: Sequence[float]) -> Callable[[Prepared], Tuning]:
    return partial(tuned, name=name, candidates=[{parameter: value} for value in values])


def _line(name: str, *scales: float, origin: str | None = None, unlabelled: int = 0, **params: object) -> Row:
    tune = partial(scaled, name=name, scales=scales, origin=origin, params=params)
    return Row(name, tune=tune, unlabelled=unlabelled)


_FEW: dict[str, object] = {"steps": 25, "patience": None, "schedule": "cosine"}

ROWS = (
    Row("base", "base", labels=False),
    Row("experts", "expert", labels=False),
    Row("linear", tune=partial(tuned, name="linear", candidates=[{}]), labels=False),
    _line("task_arithmetic", 0.015, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4),
    _distilled("supermerge_distill_row", granularity="row", init=0.15, lr=0.02, steps=100, schedule="cosine"),
    _distilled("supermerge_distill_iso_c", granularity="row", init="iso_c", lr=0.02, steps=100, schedule="cosine"),
    _distilled(
        "supermerge_distill_iso_c_512",
        unlabelled=512,
        granularity="row",
        init="iso_c",
        lr=0.02,
        steps=200,
        schedule="cosine",
    ),
    _distilled(
        "supermerge_distill_row_512",
        unlabelled=512,
        granularity="row",
        init=0.05,
        lr=0.02,
        steps=200,
        schedule="cosine",
    ),
    _line("tsv_m", 0.2, 0.35, 0.5, 0.7, 1.0, 1.4),
    _line("iso_c", 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0),
    _line("cart", 0.3, 0.6, 1.0, 2.0, 3.5, 5.0, 7.0, 10.0, origin="linear"),
    _line("ties", 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1.0),
    _labels("supermerge_labels"),
    _labels("supermerge_labels_0.3", init=0.3),
    _distilled("supermerge_distill_tensor", granularity="tensor", init=0.15, lr=0.03, steps=100, schedule="cosine"),
    _line("consensus", 0.03, 0.06, 0.1, 0.2, 0.3, 0.5),
    _line("dare_ties", 0.015, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0),
    Row("regmean", tune=_grid("regmean", "keep", (0.1, 0.5, 0.7, 0.9, 0.95, 1.0)), unlabelled=UNLABELLED),
    Row("fisher", tune=_grid("fisher", "floor", (10.0, 1.0, 0.1, 1e-2, 1e-6)), unlabelled=UNLABELLED),
    Row(
        "adamerging",
        # The authors' 0.001 would take 500 steps, and their start, 0.3, is where some suites' sums break down.
        tune=partial(
            learned_each,
            name="adamerging",
            candidates=[{"lr": 0.01, "steps": 60, "init": init} for init in (0.05, 0.3)],
        ),
        unlabelled=UNLABELLED,
    ),
    Row(
        "supermerge_labels_distill_row",
        make=partial(
            _learned,
            params={
                "loss": {"cross_entropy": 0.1, "distill": 1},
                "granularity": "row",
                "init": 0.15,
                "lr": 0.02,
                "steps": 100,
                "schedule": "cosine",
                "patience": None,
            },
        ),
        unlabelled=UNLABELLED,
    ),
    Row("multitask", "multitask", labels=False),
    Row("probe_base", "control"),
    Row("few_shot_base", "control"),
    Row("few_shot_merged", "control"),
    # The same few steps for all: flat, in a tree, and with one expert more at a time.
    _labels("supermerge_few_steps", **_FEW),
    _labels("supermerge_few_steps_mean", init="average", **_FEW),
    _labels("supermerge_hierarchy", hierarchy={"group": 2}, **_FEW),
    Row("supermerge_one_by_one", make=partial(one_by_one, params={**_FEW, "steps": 10})),
    Row("mats", tune=_grid("mats", "iterations", (3, 10, 30)), unlabelled=UNLABELLED),
    # One draw each: merges of which published comparisons speak, beside those above.
    _line("esm", 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, unlabelled=UNLABELLED),
    _line("cat", 0.015, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, unlabelled=UNLABELLED),
    Row("regmean_plus_plus", tune=_grid("regmean_plus_plus", "keep", (0.5, 0.9)), unlabelled=UNLABELLED),
    Row("gradient_matching", tune=_grid("gradient_matching", "scale", (0.1, 0.3, 0.5, 1.0)), unlabelled=UNLABELLED),
    _line("iso_cts", 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0),
    _line("dc_merge", 0.5, 1.0, 2.0, 4.0, density=0.1),
    _line("wudi", 0.1, 0.2, 0.35, 0.5, 0.7, 1.0),
    _line("pcb", 0.05, 0.1, 0.2, 0.4, 0.7, 1.2, 2.0, 3.0),
    _line("breadcrumbs", 0.03, 0.06, 0.1, 0.2, 0.3, 0.5),
    _line("della", 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1.0),
    _line("sce", 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1.0),
    _line("magmax", 0.03, 0.06, 0.1, 0.2, 0.3, 0.5),
    Row("svc", tune=_grid("svc", "scale", (0.03, 0.06, 0.1, 0.2, 0.3, 0.5))),
    _line("lot", 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, unlabelled=UNLABELLED),
    _line("sens_merging", 0.015, 0.03, 0.06, 0.1, 0.2, 0.3, unlabelled=UNLABELLED, estimator="sampled"),
    Row("model_stock", tune=partial(tuned, name="model_stock", candidates=[{}]), labels=False),
)
BY_NAME = {row.name: row for row in ROWS}
