"""Methods that learn their coefficients, as a recipe would have it."""

from __future__ import annotations

from collections.abc import Sequence

from suites.static import Made, Values, best
from supermerge.methods import get
from supermerge.methods.settings import LearnSettings
from supermerge.run.candidates import merged_in_memory
from supermerge.run.learned import basis_of, learn_merge
from supermerge.run.prepared import Prepared


def learned_best(ready: Prepared, name: str, candidates: Sequence[Values]) -> Made:
    """The merge that scores best on the labelled examples; for methods that learn without them."""
    return best(ready, candidates, lambda params: learned(ready, name, params).merged)


def learned(ready: Prepared, name: str, params: Values) -> Made:
    """The merge of a learned method with `params` beside its defaults."""
    method = get(name)
    assert method.learned is not None
    spec = method.learned
    own = {"link": spec.link, "loss": spec.loss, "init": spec.init, "granularity": spec.granularity, **spec.defaults}
    settings = LearnSettings.model_validate({**own, **params})
    with basis_of(ready, settings) as basis:
        found = learn_merge(ready.session(None), method, settings, basis, None)
        merged = merged_in_memory(found.merge, ready.match, ready.recipe.seed)
    return Made(merged, {**settings.model_dump(), "best_step": found.learned.best_step})
