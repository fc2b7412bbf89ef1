"""Methods without learning, their hyper-parameters tuned on the draw's labelled examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A merge and what it was made with; `validation` is (accuracy, loss) where that chose it."""

    merged: Checkpoint
    settings: Values
    validation: tuple[float, float] | None = None


def merged_with(ready: Prepared, name: str, params: Values) -> Checkpoint:
    """The merge of a method, its statistics measured or read."""
    with measured(ready, Choice(get(name).bind(params))) as choice:
        return merged_in_memory(choice.default, ready.match, ready.recipe.seed)


def best(ready: Prepared, candidates: Sequence[Values], make: Callable[[Values], Checkpoint]) -> Made:
    """The candidate with the best validation accuracy; of equals the one with the lower loss, then the first."""
    if len(candidates) == 1:
        return Made(make(candidates[0]), candidates[0])
    bench = ready.require_bench("tuning")
    found: Made | None = None
    for params in candidates:
        merged = make(params)
        bench.load(merged)
        accuracy, loss = validation(bench, ready.rows)
        emit("note", message=f"{dict(params)}: validation accuracy {accuracy:.4f}, loss {loss:.4f}")
        if found is None or found.validation is None or (accuracy, -loss) > (found.validation[0], -found.validation[1]):
            found = Made(merged, params, (accuracy, loss))
    assert found is not None
    return found


def tuned(ready: Prepared, name: str, candidates: Sequence[Values]) -> Made:
    """A method with each candidate's parameters."""
    return best(ready, candidates, lambda params: merged_with(ready, name, params))


def scaled(ready: Prepared, name: str, scales: Sequence[float], origin: str | None = None) -> Made:
    """A method whose merge is a line in its `scale`: θ(s) = θ(0) + s · (θ(1) − θ(0)), made once for all scales.

    θ(0) is the base, or the merge of the method `origin`.
    """
    start = ready.opened.base if origin is None else merged_with(ready, origin, {})
    end = merged_with(ready, name, {"scale": 1.0})

    def at(params: Values) -> Checkpoint:
        tensors = {}
        for tensor in end.tensors:
            first, last = start.read(tensor), end.read(tensor)
            tensors[tensor] = torch.lerp(first, last, params["scale"]) if first.is_floating_point() else last
        return Checkpoint.open(tensors, label=name)

    return best(ready, [{"scale": scale} for scale in scales], at)
