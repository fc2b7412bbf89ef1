"""Methods that learn their coefficients, as a recipe would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from suites.static import Made, Tuning, Values
from supermerge.learn.given_start import Given, given_of
from supermerge.methods import get
from supermerge.resolve import settings_of
from supermerge.run.candidates import merged_in_memory
from supermerge.run.learned import basis_of, learn_merge
from supermerge.run.prepared import Prepared


def learned_each(ready: Prepared, name: str, candidates: Sequence[Values]) -> Tuning:
    """A method that learns without labels, with each candidate's settings."""
    return Tuning(candidates, lambda params: learned(ready, name, params)[0].merged)


def learned(
    ready: Prepared, name: str, params: Values, given: Mapping[str, Given] | None = None
) -> tuple[Made, Mapping[str, Given]]:
    """The merge of a learned method with `params` beside its defaults, and its coefficients.

    `given` are coefficients to start from, as `supermerge add` has them.
    """
    method = get(name)
    settings = settings_of(method, params)
    assert settings is not None
    with basis_of(ready, settings) as basis:
        session = replace(ready.session(None), given=given or {})
        found = learn_merge(session, method, settings, basis, None)
        merged = merged_in_memory(found.merge, ready.match, ready.recipe.seed)
    said = {**settings.model_dump(), "best_step": found.learned.best_step}
    return Made(merged, said), given_of(found.learned.coefficients)


def one_by_one(ready: Prepared, params: Values) -> Made:
    """Two experts, then one more at a time, each time learning on from the coefficients so far: `supermerge add`."""
    names = list(ready.match.experts)
    made, given = None, None
    for count in range(2, len(names) + 1):
        made, given = learned(among(ready, names[:count]), "supermerge", params, given)
    assert made is not None
    return made


def among(ready: Prepared, names: Sequence[str]) -> Prepared:
    """With some of the experts, and their tasks."""
    own = {task: rows for task, rows in ready.rows.items() if ready.recipe.tasks[task].expert in names}
    match = replace(ready.match, experts={name: ready.match.experts[name] for name in names})
    return replace(ready, match=match, rows=own)
