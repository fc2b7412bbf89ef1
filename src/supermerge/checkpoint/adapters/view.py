"""An expert that is an adapter on the base: what it changes, under the base's names, without working anything out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supermerge.checkpoint.adapters.adapted import Adapted
from supermerge.checkpoint.adapters.changes import Changed
from supermerge.checkpoint.adapters.settings import AdapterSettings
from supermerge.checkpoint.checkpoint import Checkpoint
from supermerge.checkpoint.renamed import Renamed
from supermerge.checkpoint.source import TensorSource


@dataclass(frozen=True, slots=True)
class AdapterView:
    """An adapter on the base.

    `changed`: the base's name -> what becomes of it; the task vector of every other tensor is zero. `trained`: such
    names -> those of the model that it was trained in, where the adapter has them. `store` gives the adapter's own
    tensors.
    """

    settings: AdapterSettings
    store: TensorSource
    changed: Mapping[str, Changed]
    trained: Mapping[str, str]


def adapter_of(base: Checkpoint, expert: TensorSource) -> AdapterView | None:
    """The adapter on `base` that `expert`, seen under the base's names, is; None where it is something else.

    Something else is also an adapter on another model than the base, and one whose vocabulary was fitted to the base's:
    their task vectors are not what the adapter says.
    """
    names = {name: name for name in expert.tensors}
    source = expert
    while not isinstance(source, Adapted):
        if isinstance(source, Renamed):
            names = {ours: source.names[theirs] for ours, theirs in names.items()}
            source = source.source
        elif isinstance(source, Checkpoint):
            source = source.store
        else:
            return None
    if source.model.identity != base.identity:
        return None
    fitted = source.fitted
    changed = {ours: fitted.changed[theirs] for ours, theirs in names.items() if theirs in fitted.changed}
    trained = {ours: fitted.trained[theirs] for ours, theirs in names.items() if theirs in fitted.trained}
    return AdapterView(source.settings, source.adapter, changed, trained)
