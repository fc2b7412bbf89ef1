"""`supermerge add` and `remove`: a merge with one expert more, or one less.

Where the other experts are still there, unchanged, all are merged anew; a method that learns then starts from the
coefficients so far. Where some are gone, a method that learns takes the merge so far for one model beside the new
expert, like one more level of a hierarchy: θ = θp + c (θm − θp) + c′ τ, which leaves the old experts in proportion.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supermerge.errors import CheckpointError, RecipeError
from supermerge.learn.automatic_start import EACH, MERGE
from supermerge.learn.basis import Basis
from supermerge.learn.given_start import Given, given_of
from supermerge.methods import get
from supermerge.methods.settings import AUTO
from supermerge.recipe import Recipe
from supermerge.resolve import learn_settings
from supermerge.run.earlier import Earlier
from supermerge.run.merging import run_beside
from supermerge.run.result import Result
from supermerge.run.standing import Standing
from supermerge.tasks.save import HEADS
from supermerge.tasks.spec import closest

PREVIOUS = "previous"
"""The merge so far, as an expert of the one that goes on without its experts, and its place in the output."""
PREVIOUS_START = 0.9
"""Its coefficient's start: it is what it should be but for the new expert, and 1 is out of reach of tanh."""


def add(directory: str | os.PathLike[str], name: str, model: str, recipe: Recipe | None = None) -> Result:
    """Merge the expert `name`, a path or hub id, into the merge in `directory`, which is replaced when all is done.

    `recipe` is the merge's recipe with what is new: tasks with their examples, another method or other settings. Its
    experts are those of the merge, with or without the new one, and may say where they are now. Without it, the
    directory's own recipe holds.

    Errors: RecipeError (a name that is taken, a recipe of other experts, no task for a method that learns),
    CheckpointError (no run wrote the directory; the base is gone; old experts are, and the method does not learn),
    RefusedError (the directory was changed); and those of `run`.
    """
    now = Standing.of(Path(directory))
    old = list(now.lock.experts)
    if name in old or name == PREVIOUS:
        raise RecipeError(
            f"--expert {name}: the merge in {directory} has an expert of that name.",
            hint=f"Choose another name than {', '.join(old)}, or remove that one first.",
        )
    if Path(model).resolve() == now.path.resolve():
        raise RecipeError(
            f"--expert {name}={model}: is the merge that it would be added to.",
            hint="Name the model that is to be added.",
        )
    wanted = _with(now, recipe or now.recipe, name, model)
    _require_task(wanted, name)
    standing, lost = now.inputs(_only(wanted, old))
    if not lost:
        return _anew(now, _joined(standing, wanted, name), added=name)
    learns = get(wanted.method.name).learned is not None
    if not learns:
        raise CheckpointError(
            f"{directory}: {wanted.method.name} merges all experts at once, and some cannot be used any more: "
            + "; ".join(f"{expert} ({what})" for expert, what in lost.items()),
            hint="Put them back where they were. Only a method that learns can go on from the merge alone.",
        )
    return _onto(now, standing, wanted, name, lost)


def remove(directory: str | os.PathLike[str], name: str) -> Result:
    """Merge the experts of the merge in `directory` again without `name`; the directory is replaced when all is done.

    The tasks of `name` go with it, heads included.

    Errors: RecipeError (an unknown name, the last expert), CheckpointError (no run wrote the directory; base or another
    expert is gone), RefusedError (the directory was changed); and those of `run`.
    """
    now = Standing.of(Path(directory))
    old = list(now.lock.experts)
    if name not in old:
        raise RecipeError(
            f"--expert {name}: the merge in {directory} has no such expert{closest(name, tuple(old))}",
            hint=f"Its experts: {', '.join(old)}.",
        )
    rest = [expert for expert in old if expert != name]
    if not rest:
        raise RecipeError(f"--expert {name}: is the only expert of the merge in {directory}; nothing would be left.")
    standing, lost = now.inputs(_only(now.recipe, rest))
    if lost:
        raise CheckpointError(
            f"{directory}: without {name}, the others are merged anew, and some cannot be used any more: "
            + "; ".join(f"{expert} ({what})" for expert, what in lost.items()),
            hint="Put them back where they were.",
        )
    return _anew(now, standing, removed=name)


def _with(now: Standing, recipe: Recipe, name: str, model: str) -> Recipe:
    """`recipe` with all experts of the merge, in their order, and then the new one."""
    old = list(now.lock.experts)
    value = recipe.model_dump(mode="json", exclude_unset=True)
    given: dict[str, Any] = value["experts"]
    unknown = [each for each in given if each not in old and each != name]
    lacking = [each for each in old if each not in given]
    for problem, names in (("is not in the merge", unknown), ("is in the merge and not in the recipe", lacking)):
        if names:
            raise RecipeError(
                f"--recipe: expert {names[0]!r} {problem}.",
                hint=f"Give a recipe with {', '.join(old)}, with or without {name}.",
            )
    experts = {each: given[each] for each in old}
    made = Recipe.of({**value, "experts": {**experts, name: {"model": model}}})
    if name not in given:
        return made
    said, asked = recipe.experts[name].ref, made.experts[name].ref
    if said != asked:
        raise RecipeError(
            f"--expert {name}={model}: the recipe says that {name} is {said}.",
            hint="Give the same place twice, or leave the expert out of the recipe.",
        )
    return Recipe.of({**value, "experts": {**experts, name: given[name]}})


def _only(recipe: Recipe, experts: list[str]) -> Recipe:
    """The recipe of some of its experts, with their tasks alone."""
    kept = {name: recipe.experts[name] for name in experts}
    tasks = {name: task for name, task in recipe.tasks.items() if task.expert in kept}
    return recipe.model_copy(update={"experts": kept, "tasks": tasks})


def _joined(standing: Recipe, wanted: Recipe, name: str) -> Recipe:
    """`wanted` with the old experts where they are now."""
    experts = {**standing.experts, name: wanted.experts[name]}
    return wanted.model_copy(update={"base": standing.base, "experts": experts})


def _require_task(recipe: Recipe, name: str) -> None:
    method = get(recipe.method.name)
    if method.learned is not None and not any(task.expert == name for task in recipe.tasks.values()):
        raise RecipeError(
            f"{method.name} learns from examples, and no task has {name!r} as its expert.",
            hint=f"Pass --recipe RECIPE, a recipe with tasks.{name} and its validation examples, and with those of the "
            "other tasks, which protect them.",
        )


def _anew(now: Standing, recipe: Recipe, *, added: str | None = None, removed: str | None = None) -> Result:
    """All experts merged, from the coefficients so far where the method learns."""
    recipe, notes = _flat(recipe)
    recipe = _settled(now, recipe)
    history = now.changed("removed" if removed else "added", removed or added or "", "all experts")
    earlier = Earlier(
        history=history,
        key=history[-1].replaced,
        newcomers=(added,) if added else (),
        given=_given(now, recipe),
        carried={**_inside(now, recipe), **_heads(now, recipe, removed)},
        notes=notes,
        warnings=_unprotected(recipe, list(recipe.experts)),
    )
    return run_beside((), recipe, output=now.path, force=True, earlier=earlier)


def _onto(now: Standing, standing: Recipe, wanted: Recipe, name: str, lost: Mapping[str, str]) -> Result:
    """The merge so far and the new expert: two models, whose experts' coefficients keep their proportions."""
    wanted, notes = _flat(wanted)
    # Vectors that other methods make of all experts cannot be made of two.
    init = wanted.method.params.get("init")
    wanted = _with_params(_without(wanted, "on"), init=EACH if init is None or isinstance(init, str) else init)
    here, there = _two(now, standing, wanted, name, now.path), _two(now, standing, wanted, name, now.path / PREVIOUS)
    history = now.changed("added", name, "merge so far")
    why = "; ".join(f"{expert} ({what})" for expert, what in lost.items())
    earlier = Earlier(
        history=history,
        key=history[-1].replaced,
        newcomers=(name,),
        given={PREVIOUS: PREVIOUS_START},
        carried={PREVIOUS: now.path, **_heads(now, here, None)},
        written=there,
        notes=notes,
        warnings=(
            f"These experts cannot be used any more: {why}. {name} is merged with the merge so far as if that were one "
            f"expert, {PREVIOUS!r}: their coefficients keep their proportions. It is kept in {now.path / PREVIOUS}.",
            *_unprotected(wanted, list(now.lock.experts)),
        ),
    )
    return run_beside((), here, output=now.path, force=True, earlier=earlier)


def _two(now: Standing, standing: Recipe, wanted: Recipe, name: str, previous: Path) -> Recipe:
    """The recipe of the merge so far, at `previous`, and the new expert. Old tasks have the heads beside the merge."""
    value = wanted.model_dump(mode="json", exclude_unset=True)
    for task, spec in value["tasks"].items():
        if wanted.tasks[task].expert != name:
            spec["expert"] = PREVIOUS
            head = now.path / HEADS / task
            if wanted.tasks[task].head == "expert" and (head / "model.safetensors").exists():
                spec["head"] = str(head.absolute())
    experts = {PREVIOUS: {"model": str(previous.absolute())}, name: value["experts"][name]}
    return Recipe.of({**value, "base": standing.base, "experts": experts})


def _flat(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Without a hierarchy: coefficients of all experts are known, so that it has nothing left to do."""
    note = "The recipe's hierarchy is left out: learning goes on from the coefficients of all experts."
    return _without(recipe, "hierarchy"), (note,) if "hierarchy" in recipe.method.params else ()


def _settled(now: Standing, recipe: Recipe) -> Recipe:
    """The recipe with the vectors that the merge so far was learned on, where `init: auto` leaves them open."""
    settings = learn_settings(recipe)
    if now.coefficients is None or settings is None or settings.init != AUTO:
        return recipe
    begun = f"start:{MERGE}" in now.coefficients.experts
    return _with_params(recipe, init=MERGE if begun else min(EACH, 1 / len(recipe.experts)))


def _without(recipe: Recipe, *keys: str) -> Recipe:
    """The recipe without some parameters of its method."""
    return _of(recipe, {key: value for key, value in recipe.method.params.items() if key not in keys})


def _with_params(recipe: Recipe, **params: object) -> Recipe:
    """The recipe with some parameters of its method."""
    return _of(recipe, {**recipe.method.params, **params})


def _of(recipe: Recipe, params: Mapping[str, Any]) -> Recipe:
    method = type(recipe.method).model_validate({"name": recipe.method.name, **params})
    return recipe.model_copy(update={"method": method})


def _given(now: Standing, recipe: Recipe) -> dict[str, Given]:
    """Where the old experts start; nothing where the method does not learn, or the merge so far was not learned."""
    settings = learn_settings(recipe)
    if now.coefficients is None or settings is None:
        return {}
    names = Basis.of(settings, list(recipe.experts)).names
    return {name: start for name, start in given_of(now.coefficients).items() if name in names}


def _inside(now: Standing, recipe: Recipe) -> dict[str, Path]:
    """Experts that lie in the directory itself: an earlier merge that was one of two."""
    root = now.path.resolve()
    places = [Path(expert.ref).resolve() for expert in recipe.experts.values()]
    return {str(place.relative_to(root)): place for place in places if place.is_relative_to(root)}


def _heads(now: Standing, recipe: Recipe, removed: str | None) -> dict[str, Path]:
    """The heads of tasks that are not in the recipe any more, but whose experts are still merged."""
    gone = {task for task, spec in now.recipe.tasks.items() if spec.expert == removed}
    places = sorted((now.path / HEADS).glob("*/config.json"))
    kept = [place.parent for place in places if place.parent.name not in {*recipe.tasks, *gone}]
    return {f"{HEADS}/{place.name}": place for place in kept}


def _unprotected(recipe: Recipe, experts: list[str]) -> tuple[str, ...]:
    """A warning where a method learns and an expert has no examples: nothing tells it what the expert loses."""
    if get(recipe.method.name).learned is None:
        return ()
    safe = {task.expert for task in recipe.tasks.values() if task.validation or task.unlabelled}
    bare = [name for name in experts if name not in safe]
    if not bare:
        return ()
    return (f"No examples protect {', '.join(bare)}: what learning costs them is not seen.",)
