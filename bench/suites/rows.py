"""The rows of the table: how each model is made. The order is the order in which cells are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from suites.learned import learned
from suites.static import Made, scaled, tuned
from supermerge.run.prepared import Prepared

Kind = Literal["base", "expert", "multitask", "static", "control"]


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the table.

    `make` gives a merge; base, experts, multi-task model and controls are made by `cell.py` itself. `labels` says
    whether the draw's labelled examples play a part, `unlabelled` whether unlabelled inputs do. A `candidate` is a
    variant of supermerge that learns from unlabelled inputs alone, so that all labels are left to choose among them.
    """

    name: str
    kind: Kind = "static"
    make: Callable[[Prepared], Made] | None = None
    labels: bool = True
    unlabelled: bool = False
    candidate: bool = False


def _distilled(name: str, **settings: object) -> Row:
    params = {"loss": "distill", "patience": None, **settings}
    return Row(
        name, make=partial(learned, name="supermerge", params=params), labels=False, unlabelled=True, candidate=True
    )


def _labels(name: str, **settings: object) -> Row:
    return Row(name, make=partial(learned, name="supermerge", params=settings))


_WIDE = (0.2, 0.3, 0.5, 0.7, 1.0, 1.4)

ROWS = (
    Row("base", "base", labels=False),
    Row("experts", "expert", labels=False),
    Row("linear", make=partial(tuned, name="linear", candidates=[{}]), labels=False),
    Row("task_arithmetic", make=partial(scaled, name="task_arithmetic", scales=(0.05, 0.1, 0.15, 0.2, 0.3, 0.4))),
    _distilled("supermerge_distill_row", granularity="row", init=0.15, lr=0.02, steps=100, schedule="cosine"),
    Row("iso_c", make=partial(scaled, name="iso_c", scales=(0.5, 0.7, 1.0, 1.4, 2.0, 2.8))),
    Row("tsv_m", make=partial(scaled, name="tsv_m", scales=(0.3, 0.5, 0.7, 1.0, 1.4, 2.0))),
    Row("cart", make=partial(scaled, name="cart", scales=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0), origin="linear")),
    Row("ties", make=partial(scaled, name="ties", scales=_WIDE)),
    _labels("supermerge_labels"),
    _distilled("supermerge_distill_tensor", granularity="tensor", init=0.15, lr=0.03, steps=100, schedule="cosine"),
    Row("consensus", make=partial(scaled, name="consensus", scales=(0.1, 0.2, 0.3, 0.5, 0.7, 1.0))),
    Row("dare_ties", make=partial(scaled, name="dare_ties", scales=_WIDE)),
    Row(
        "adamerging",
        make=partial(learned, name="adamerging", params={"lr": 0.01, "steps": 60}),
        labels=False,
        unlabelled=True,
    ),
    Row("fisher", make=partial(tuned, name="fisher", candidates=[{}]), labels=False, unlabelled=True),
    Row(
        "regmean",
        make=partial(tuned, name="regmean", candidates=[{"keep": keep} for keep in (0.7, 0.9, 1.0)]),
        unlabelled=True,
    ),
    Row(
        "mats",
        make=partial(tuned, name="mats", candidates=[{"estimator": "sampled", "start": 0.15, "iterations": 10}]),
        labels=False,
        unlabelled=True,
    ),
    Row(
        "supermerge_labels_distill_row",
        make=partial(
            learned,
            name="supermerge",
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
        unlabelled=True,
    ),
    Row("multitask", "multitask", labels=False),
    Row("probe_base", "control"),
    Row("few_shot_base", "control"),
    Row("few_shot_merged", "control"),
)
BY_NAME = {row.name: row for row in ROWS}
