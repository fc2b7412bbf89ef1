"""Turns what pydantic found wrong with a recipe into one readable message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from supermerge.errors import RecipeError
from supermerge.tasks.spec import closest
from supermerge.yaml_file import Document, Path


def explain(error: ValidationError, model: type[BaseModel], document: Document, where: str) -> RecipeError:
    """One RecipeError with every problem of `error`, each on its own line with its line number and its key."""
    problems: list[tuple[int, str]] = []
    for details in _telling(error.errors(include_url=False), document.value):
        location = details["loc"]
        path = _written_part(location, document.value)
        line = document.line(location if details["type"] == "extra_forbidden" else path)
        place = f"{where}, line {line}" if line else where
        key = ".".join(str(part) for part in path)
        problem = _problem(details, model)
        problems.append((line or 0, f"{place}: {key}: {problem}" if key else f"{place}: {problem}"))
    return RecipeError("\n".join(dict.fromkeys(problem for _, problem in sorted(problems))))


def _telling(found: list[ErrorDetails], written: Any) -> list[ErrorDetails]:
    """Without the complaints that a value has another type, where it has one that a key allows and is wrong in it."""
    fitting = {_written_part(one["loc"], written) for one in found if not one["type"].endswith("_type")}
    return [
        one for one in found if not (one["type"].endswith("_type") and _written_part(one["loc"], written) in fitting)
    ]


def _problem(details: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong, what was expected, and the likely meaning."""
    kind, location, found = details["type"], details["loc"], details["input"]
    last = str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        return f"unknown key {last!r}{closest(last, _known_keys(location[:-1], model))}"
    if kind == "missing":
        return f"key {last!r} is missing"
    if kind == "literal_error":
        choices = tuple(re.findall("'([^']*)'", details["msg"]))
        if not choices:  # numbers
            return f"found {_short(found)}; {details['msg'].removeprefix('Input ')}"
        return f"found {found!r}{closest(str(found), choices)}"
    if kind == "string_pattern_mismatch":
        return f"{found!r} is not a name: use letters, digits and, inside, '_', '-', '.' or '+'"
    if kind == "value_error":
        return details["msg"].removeprefix("Value error, ")
    return f"{details['msg'].removeprefix('Input ')}, found {_short(found)}"


def _written_part(location: Path, value: Any) -> Path:
    """The beginning of `location` that exists in the recipe as written: pydantic adds names of types to it."""
    for depth, part in enumerate(location):
        items: Any = dict(enumerate(value)) if isinstance(value, list) else value
        if not (isinstance(items, Mapping) and part in items):
            return location[:depth]
        value = items[part]
    return location


def _known_keys(location: Path, model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of the part at `location`, found by following the annotations of `model`."""
    parts = list(location)
    while parts and isinstance(parts[0], str) and parts[0] in model.model_fields:
        annotation = model.model_fields[str(parts.pop(0))].annotation
        inside = [inner for inner in get_args(annotation) if isinstance(inner, type) and issubclass(inner, BaseModel)]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        elif inside and get_origin(annotation) is UnionType:
            model = inside[0]
        elif inside:
            # A mapping or a list of parts: the next item of the location is a name or a number.
            model, parts = inside[0], parts[1:]
    return tuple(model.model_fields)


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."
