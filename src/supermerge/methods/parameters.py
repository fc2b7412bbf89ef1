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
        lines = [_problem(key, found, known) for key, found in problems.items()]
        raise RecipeError(
            f"method {name}: {'; '.join(lines)}.",
            hint=f"`supermerge methods {name}` lists its parameters: {', '.join(known) or 'none'}.",
        ) from None
    return {key: getattr(checked, key) for key in known}


def _problem(key: str, found: Any, known: Sequence[str]) -> str:
    if found["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known, n=1)
        return f"unknown parameter {key!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    message = found["msg"][0].lower() + found["msg"][1:]
    return f"{key} = {found['input']!r}: {message}"


def per_expert(value: float | Sequence[float], k: int) -> list[float]:
    """One number for each of k experts; a single number goes to all."""
    return [value] * k if isinstance(value, int | float) else list(value)
