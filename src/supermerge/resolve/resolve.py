"""From a recipe's words to the things they name: open checkpoints, bound methods, settings of learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supermerge.assemble import Choice
from supermerge.checkpoint import Checkpoint, Match, TensorSource, match, open_expert
from supermerge.checkpoint.adapters import adapter_of
from supermerge.checkpoint.agreeing import compared_configs
from supermerge.checkpoint.config import config_for
from supermerge.checkpoint.fitting import fitted
from supermerge.checkpoint.vocabulary import Files
from supermerge.errors import RecipeError
from supermerge.mergekit.opening import open_merges
from supermerge.methods import Method, get
from supermerge.methods.parameters import validated
from supermerge.methods.settings import LearnSettings
from supermerge.recipe import Recipe
from supermerge.resolve.parameters import bind, by_layer


@dataclass(frozen=True, slots=True)
class Opened:
    """The checkpoints of a recipe, how they fit together, and which method merges which tensor.

    `files` go beside the merged weights. `inputs` are all checkpoints that are read. `origins`, for mergekit's recipes,
    say which model's tensor was read: name in the match ("" for the base) → output name → (model, stored name).
    """

    base: Checkpoint
    experts: dict[str, Checkpoint]
    match: Match
    choice: Choice
    files: Files
    inputs: tuple[Checkpoint, ...]
    origins: Mapping[str, Mapping[str, tuple[str, str]]] | None = None

    @property
    def locked(self) -> Mapping[str, TensorSource]:
        """The experts with the names of tensors that a lock file uses; an adapter on the base by its own tensors."""
        if self.origins is not None:
            return self.experts
        views = {name: adapter_of(self.base, source) for name, source in self.match.experts.items()}
        return {name: view.store if (view := views[name]) else source for name, source in self.match.experts.items()}


@contextmanager
def opened(recipe: Recipe) -> Iterator[Opened]:
    """The base and the experts of `recipe`, opened (headers only) and matched; closed at the end of the block."""
    with ExitStack() as stack:
        if recipe.mergekit is not None:
            merge = open_merges(recipe.mergekit, stack, recipe.seed)
            (first, base), *others = merge.models.items()
            experts = dict(others or [(first, base)])
            yield Opened(base, experts, merge.match, merge.choice, merge.files, merge.inputs, merge.origins)
            return
        chosen_methods(recipe)  # mistakes in parameters surface before those of checkpoints
        base = stack.enter_context(Checkpoint.open(recipe.base))
        experts: dict[str, Checkpoint] = {}
        for name, expert in recipe.experts.items():
            experts[name] = open_expert(expert.model, base, stack, adapter=expert.adapter)
        for checkpoint in (base, *experts.values()):
            checkpoint.side_files()  # a link out of its directory is refused now, not when it is copied
        ways = compared_configs(base, experts)
        same_tokens, notes = fitted(base, experts)
        matched = match(base, same_tokens)
        matched = replace(matched, notes=[*ways, *notes, *matched.notes])
        choice = chosen_methods(recipe, list(base.tensors))
        yield Opened(base, experts, matched, choice, _files(base, recipe), (base, *experts.values()))


def _files(base: Checkpoint, recipe: Recipe) -> Files:
    files: dict[str, Path | bytes] = {file.name: file for file in base.side_files()}
    config = config_for(files.get("config.json"), dtype=recipe.output.dtype)
    return files if config is None else {**files, "config.json": config}


def chosen_methods(recipe: Recipe, names: Sequence[str] = ()) -> Choice:
    """The recipe's method and rules with checked parameters; RecipeError where one is unknown or out of range.

    Gradients are worked out for the tensors called `names`.
    """
    rules = tuple((rule.match, bind(rule.method, recipe)) for rule in recipe.rules)
    for (pattern, bound), rule in zip(rules, recipe.rules, strict=True):
        if bound.method.learned is not None:
            raise RecipeError(
                f"rules: {pattern!r} asks for {rule.method.name}, which learns",
                hint="Only 'method' can learn; rules name methods that need no data.",
            )
    return Choice(bind(recipe.method, recipe), rules, by_layer(recipe, names))


def learn_settings(recipe: Recipe) -> LearnSettings | None:
    """How the recipe's method learns: its own defaults and what the recipe says; None where it does not learn."""
    return settings_of(get(recipe.method.name), recipe.method.params)


def settings_of(method: Method, params: Mapping[str, Any]) -> LearnSettings | None:
    """How `method` learns with `params`; RecipeError where one is unknown or out of range."""
    if method.learned is None:
        return None
    spec = method.learned
    own = {"link": spec.link, "loss": spec.loss, "init": spec.init, "granularity": spec.granularity, **spec.defaults}
    return LearnSettings(**validated(method.name, LearnSettings, {**own, **params}))
