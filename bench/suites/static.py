"""Methods without learning, their hyper-parameters tuned on the draw's labelled examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from suites.judge import validation
from supermerge.assemble import Choice
from supermerge.checkpoint import Checkpoint
from supermerge.events import emit
from supermerge.methods import get
from supermerge.run.candidates import merged_in_memory
from supermerge.run.measuring import measured
from supermerge.run.prepared import Prepared
from supermerge.run.rows import TaskRows

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A merge and what it was made with; `validation` is (accuracy, loss) where that chose it."""

    merged: Checkpoint
    settings: Values
    validation: tuple[float, float] | None = None
    elsewhere: float = 0.0
    """CPU seconds of this process that went into choosing for other budgets."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Candidates, and how the merge of one is made: without the labelled examples, which are to choose among them."""

    candidates: Sequence[Values]
    make: Callable[[Values], Checkpoint]


def merged_with(ready: Prepared, name: str, params: Values) -> Checkpoint:
    """The merge of a method, its statistics measured or read."""
    with measured(ready, Choice(get(name).bind(params))) as choice:
        return merged_in_memory(choice.default, ready.match, ready.recipe.seed)


def best(ready: Prepared, tuning: Tuning) -> Made:
    """The candidate with the best validation accuracy; of equals the one with the lower loss, then the first."""
    return best_of_each(ready, tuning, [ready.rows])[0]


def best_of_each(ready: Prepared, tuning: Tuning, labelled: Sequence[Mapping[str, TaskRows]]) -> list[Made]:
    """The best candidate for each set of labelled examples; every candidate is made once for all of them."""
    if len(tuning.candidates) == 1:
        (only,) = tuning.candidates
        return [Made(tuning.make(only), only)] * len(labelled)
    bench = ready.require_bench("tuning")
    found: dict[int, Made] = {}
    scores: dict[int, tuple[float, float]] = {}
    spent = [0.0] * len(labelled)
    for params in tuning.candidates:
        merged = tuning.make(params)
        bench.load(merged)
        for place, rows in enumerate(labelled):
            started = time.process_time()
            accuracy, loss = validation(bench, rows)
            spent[place] += time.process_time() - started
            emit("note", message=f"{dict(params)}: validation accuracy {accuracy:.4f}, loss {loss:.4f}")
            if place not in found or (accuracy, -loss) > scores[place]:
                found[place], scores[place] = Made(merged, params, (accuracy, loss)), (accuracy, -loss)
    return [replace(found[place], elsewhere=sum(spent) - own) for place, own in enumerate(spent)]


def tuned(ready: Prepared, name: str, candidates: Sequence[Values]) -> Tuning:
    """A method with each candidate's parameters."""
    return Tuning(candidates, lambda params: merged_with(ready, name, params))


def scaled(
    ready: Prepared, name: str, scales: Sequence[float], origin: str | None = None, params: Values | None = None
) -> Tuning:
    """A method whose merge is a line in its `scale`: θ(s) = θ(0) + s · (θ(1) − θ(0)), made once for all scales.

    θ(0) is the base, or the merge of the method `origin`. `params` are the method's other parameters.
    """
    start = ready.opened.base if origin is None else merged_with(ready, origin, {})
    end = merged_with(ready, name, {**(params or {}), "scale": 1.0})

    def at(params: Values) -> Checkpoint:
        tensors = {}
        for tensor in end.tensors:
            first, last = start.read(tensor), end.read(tensor)
            tensors[tensor] = torch.lerp(first, last, params["scale"]) if first.is_floating_point() else last
        return Checkpoint.open(tensors, label=name)

    return Tuning([{"scale": scale} for scale in scales], at)
