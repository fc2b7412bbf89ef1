"""A method's keyword-only signature is its configuration: types for it, and the model that checks values against it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from supermerge.errors import RecipeError
from supermerge.methods.context import Context
from supermerge.methods.measured import Statistics
from supermerge.methods.survey import Survey

Number = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
DropRate = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# A sequence of numbers always has one number per expert, in the order of the experts.
Weights = tuple[Number, ...] | None
Shares = tuple[NonNegative, ...] | None
Fractions = Fraction | tuple[Fraction, ...]
DropRates = DropRate | tuple[DropRate, ...]


def injected(function: Callable[..., Any]) -> dict[str, type]:
    """The parameters that are not configuration: `Context`, `Statistics`, or a kind of `Survey`, by name."""
    found: dict[str, type] = {}
    for name, hint in get_type_hints(function).items():
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, Context | Statistics | Survey):
                found[name] = kind
    return found


def configuration(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """The pydantic model of the keyword-only parameters of `function`; unknown keys are forbidden."""
    hints, skipped = get_type_hints(function, include_extras=True), injected(function)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in skipped
    }
    return create_model(name, __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def validated(name: str, model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with defaults filled in; every unknown key or value out of range in one RecipeError."""
    known = list(model.model_fields)
    try:
        checked = model.model_validate(dict(given))
    except ValidationError as error:
        problems: dict[str, Any] = {}
        for found in error.errors():
            key = str(found["loc"][0])
            # A union reports every member: one that has the right type but the wrong value says more.
            if key not in problems or problems[key]["type"].endswith("_type"):
                problems[key] = found if not found["type"].endswith("_type") else problems.get(key, found)
        lines = [_problem(found, model, given) for found in problems.values()]
        raise RecipeError(
            f"method {name}: {'; '.join(lines)}.",
            hint=f"`supermerge methods {name}` lists its parameters: {', '.join(known) or 'none'}.",
        ) from None
    return {key: getattr(checked, key) for key in known}


def _problem(found: Any, model: type[BaseModel], given: Mapping[str, Any]) -> str:
    key, *inside = map(str, found["loc"])
    known: Sequence[str] = list(model.model_fields)
    # A parameter may have keys of its own; pydantic also adds the types of a union, which say nothing here.
    if inside and isinstance(given[key], Mapping) and inside[0] in given[key]:
        place, last, known = f"{key}.{inside[0]}", inside[0], _fields_of(model.model_fields[key].annotation)
    else:
        place = last = key
    if found["type"] == "extra_forbidden":
        close = difflib.get_close_matches(last, known, n=1)
        return f"unknown parameter {place!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    message = found["msg"].removeprefix("Value error, ")
    return f"{place} = {found['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_of(annotation: Any) -> list[str]:
    """The keys of the model that `annotation` is, or may be."""
    models = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return [name for kind in models if issubclass(kind, BaseModel) for name in kind.model_fields]


def per_expert(value: float | Sequence[float], k: int) -> list[float]:
    """One number for each of k experts; a single number goes to all."""
    return [value] * k if isinstance(value, int | float) else list(value)
