"""One method among others: made in memory on the recipe's checkpoints and rows, and scored like all the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supermerge.assemble import Choice
from supermerge.checkpoint import Checkpoint
from supermerge.learn.objectives import OBJECTIVES, weighted_objectives
from supermerge.methods import get
from supermerge.methods.settings import LearnSettings
from supermerge.report.results import ModelResult
from supermerge.run.candidates import Tuner, merged_in_memory
from supermerge.run.judging import Judge
from supermerge.run.learned import basis_of, learn_merge
from supermerge.run.measuring import measured
from supermerge.run.prepared import Prepared
from supermerge.run.scoring import Scoring
from supermerge.run.stopwatch import Stopwatch


def contend(ready: Prepared, scoring: Scoring, name: str, *, judged: bool = False) -> ModelResult:
    """Merge with the method called `name` and score it on the test rows, and where it is to be `judged`, on validation
    rows that it has not learned from.

    The recipe's own method has the recipe's parameters; another one has its defaults, and of its main parameter the
    value that scores best on the labelled validation rows. `seconds` counts learning and tuning.
    """
    watch = Stopwatch()
    judge = Judge.of(ready) if judged else None
    merged, settings = _made(ready, name, judge)
    shown = {key: value for key, value in settings.items() if isinstance(value, int | float | str)}
    validation = judge.mean if judge else None
    return scoring.model(
        f"method:{name}", name, "method", merged, seconds=watch.seconds, validation=validation, settings=shown
    )


def require_rows(ready: Prepared, name: str) -> None:
    """DataError where the method called `name` learns, and a task lacks the rows for it."""
    if get(name).learned is not None:
        ready.session(None).require_rows(weighted_objectives(_learning(ready, name).loss))


def _params(ready: Prepared, name: str) -> Mapping[str, Any]:
    return ready.recipe.method.params if ready.recipe.method.name == name else {}


def _learning(ready: Prepared, name: str) -> LearnSettings:
    method = type(ready.recipe.method).model_validate({"name": name, **_params(ready, name)})
    settings = ready.learn_settings(ready.recipe.model_copy(update={"method": method}))
    assert settings is not None
    return settings


def _made(ready: Prepared, name: str, judge: Judge | None) -> tuple[Checkpoint, dict[str, Any]]:
    recipe, method, params = ready.recipe, get(name), _params(ready, name)
    if method.learned is None:
        tuner = Tuner(ready.require_bench("compare"), ready.match, ready.rows, recipe.seed, judge)
        with measured(ready, Choice(method.bind(params))) as choice:
            bound, merged = tuner.tuned(choice.default, params)
        return merged, dict(bound.values)
    settings = _learning(ready, name)
    with basis_of(ready, settings) as basis:
        learned = learn_merge(ready.session(None, judge.now if judge else None), method, settings, basis, None)
        merged = merged_in_memory(learned.merge, ready.match, recipe.seed)
        labelled = any(OBJECTIVES[each].labelled for each in weighted_objectives(settings.loss))
        if judge is not None and not judge.scores and not labelled:
            # It searched for nothing, and has seen no label: nothing had to be held back from it.
            judge.bench.load(merged)
            judge.now()
        return merged, settings.model_dump()
