"""Which experts an adapter can hold the merge of, and what the tensors are called in the model that it is for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from supermerge.assemble.choice import Choice
from supermerge.checkpoint import Match
from supermerge.checkpoint.adapters import AdapterView, adapter_of
from supermerge.errors import RecipeError

_DENSE = "Use save_as: dense."


def require_adapters(match: Match) -> dict[str, AdapterView]:
    """The experts as adapters on the base; RecipeError that names those which are something else."""
    views = {name: adapter_of(match.base, source) for name, source in match.experts.items()}
    others = [name for name, view in views.items() if view is None]
    if others:
        raise RecipeError(
            f"output.save_as: an adapter cannot hold this merge: {', '.join(others)} "
            f"{'is' if len(others) == 1 else 'are'} no adapter on the base {match.base.label}, but a model of its own, "
            "or an adapter on another one.",
            hint=_DENSE,
        )
    return {name: view for name, view in views.items() if view is not None}


def require_kept_base(choice: Choice, k: int) -> None:
    """RecipeError for a method that changes the base even where no expert does: no adapter could say so."""
    ramp = torch.linspace(0.5, 1.5, 16).view(4, 4)
    for bound in choice.bounds:
        if bound.method.function is None or bound.method.learned is not None:
            continue
        if not torch.allclose(bound.rehearsal().merge(ramp, torch.zeros(k, 4, 4)), ramp):
            raise RecipeError(
                f"output.save_as: an adapter cannot hold this merge: with these parameters {bound.method.name} changes "
                "the base itself.",
                hint=f"Let the weights sum to 1, or normalise them. {_DENSE}",
            )


def trained_names(match: Match, views: Mapping[str, AdapterView]) -> dict[str, str]:
    """The base's names -> those of the model that the experts were trained in; RecipeError where these differ."""
    found: dict[tuple[str, str], str] = {}
    for expert, view in views.items():
        for name, trained in view.trained.items():
            if trained.endswith(name):
                found.setdefault(("", trained.removesuffix(name)), expert)
            elif name.endswith(trained):
                found.setdefault((name.removesuffix(trained), ""), expert)
    if len(found) > 1:
        listed = ", ".join(f"{expert} with {added or removed!r}" for (removed, added), expert in found.items())
        raise RecipeError(
            "output.save_as: the experts were trained in models whose names differ, so that one adapter cannot be "
            f"loaded on both: {listed} before the base's names.",
            hint=f"Give the recipe tasks: the adapter is then for the model that they share. {_DENSE}",
        )
    removed, added = next(iter(found), ("", ""))
    return {name: added + name.removeprefix(removed) for name in match.base.tensors}


def inside(tensor: str, saved: Collection[str]) -> bool:
    """Whether a tensor is in a module that PEFT takes for one of `saved`: one whose name ends alike."""
    parts = tensor.split(".")[:-1]
    modules = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(module.endswith(each) for module in modules for each in saved)
