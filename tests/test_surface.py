"""The frozen surface: commands, flags, recipe keys and Python names that other people's scripts rely on.

A change here needs an issue that says so, and a line in CHANGELOG.md.
"""

from __future__ import annotations

import inspect

import pytest
import typer

import supermerge
import supermerge.errors
from supermerge.cli.main import app
from supermerge.recipe import Expert, MethodChoice, Output, Recipe, Rule
from supermerge.tasks.spec import TaskSpec

COMMANDS = {
    "run": "RECIPE -o --output --set --force --no-resume --allow-unrelated --quiet --log-format --debug",
    "plan": "RECIPE --json --debug",
    "evaluate": "MODEL --recipe --json --debug",
    "compare": "RECIPE --methods -o --output --json --debug",
    "inspect": "CHECKPOINT... --base --json --debug",
    "methods": "NAME --json --debug",
    "add": "DIR --expert --recipe --debug",
    "remove": "DIR --expert --debug",
    "verify": "DIR --check --debug",
    "doctor": "RECIPE --json --debug",
    "demo": "-o --output --debug",
}

RECIPE_KEYS = {
    Recipe: "base experts method tasks rules output memory if_worse seed version",
    Expert: "model adapter weight",
    MethodChoice: "name",
    Rule: "match method",
    Output: "path dtype shard_size save_as rank",
    TaskSpec: "type expert text image label prompt target labels validation unlabelled test metric held_back weight "
    "batch_size max_length pooling head embeddings entry_point",
}

SIGNATURES = {
    "merge": "base, experts, method='ties', weights=None, *, rules=(), seed=0, threads=None, **params",
    "run": "recipe, *, output=None, force=False, resume=True, allow_unrelated=False",
    "plan": "recipe, *, output=None, force=False",
    "evaluate": "model, recipe",
    "compare": "recipe, methods, output=None",
    "load": "directory, task=None",
}
LEARN_START = ["model", "base", "experts", "batches", "loss"]
LEARN_DEFAULTS = {
    "link": "tanh",
    "granularity": "tensor",
    "residency": "auto",
    "init": 0.3,
    "schedule": None,
    "clip": None,
    "early_stopping": None,
}

EXIT_CODES = {
    "UsageError": 2,
    "RecipeError": 3,
    "CheckpointError": 4,
    "ResourceError": 5,
    "DataError": 6,
    "RefusedError": 7,
    "NetworkError": 8,
    "InterruptedRun": 130,
}


def test_commands() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert list(group.commands) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_and_flags(command: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found: list[str] = []
    for parameter in group.commands[command].params:
        is_argument = parameter.param_type_name == "argument"
        found += [str(parameter.metavar)] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    assert " ".join(found) == COMMANDS[command]


@pytest.mark.parametrize("part", RECIPE_KEYS, ids=lambda part: part.__name__)
def test_recipe_keys(part: type[Recipe]) -> None:
    assert " ".join(part.model_fields) == RECIPE_KEYS[part]


def test_python_names() -> None:
    assert sorted(supermerge.__all__) == sorted([*SIGNATURES, "learn", "__version__"])


@pytest.mark.parametrize("name", SIGNATURES)
def test_python_signatures(name: str) -> None:
    signature = inspect.signature(getattr(supermerge, name))
    plain = signature.replace(
        parameters=[each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    assert str(plain) == f"({SIGNATURES[name]})"


def test_learn_signature() -> None:
    parameters = inspect.signature(supermerge.learn).parameters
    assert list(parameters)[: len(LEARN_START)] == LEARN_START
    assert [parameters[name].default for name in ("steps", "lr")] == [inspect.Parameter.empty] * 2
    assert {name: parameters[name].default for name in LEARN_DEFAULTS} == LEARN_DEFAULTS


def test_functions_win_over_the_modules_of_their_names() -> None:
    import supermerge.plan  # binds the submodule, as any import of it does

    assert inspect.isfunction(supermerge.plan)


def test_exit_codes() -> None:
    assert {name: getattr(supermerge.errors, name).exit_code for name in EXIT_CODES} == EXIT_CODES
    assert supermerge.errors.SupermergeError.exit_code == 1
