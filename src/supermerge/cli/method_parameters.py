"""The parameters of a method in words, from the signature or the settings that define them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from supermerge.methods import Method
from supermerge.resolve import settings_of


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its default and its type as people say them, and its JSON schema."""

    name: str
    default: str
    words: str
    schema: dict[str, Any]


def parameters(method: Method) -> Iterator[Parameter]:
    """Every parameter that a recipe may set beside the method's name."""
    settings = settings_of(method, {})
    model = type(settings) if settings else method.parameters
    schemas = model.model_json_schema().get("properties", {})
    for name, field in model.model_fields.items():
        default = getattr(settings, name) if settings else field.default
        schema = {**schemas[name], **({} if field.is_required() else {"default": default})}
        shown = "required" if field.is_required() else "none" if default is None else str(default)
        yield Parameter(name, shown, _words(schema), schema)


def described(method: Method) -> dict[str, Any]:
    """The method as JSON values."""
    return {
        "name": method.name,
        "title": method.title,
        "kind": method.kind,
        "data": method.learned.data if method.learned else None,
        "paper": method.paper,
        "description": method.doc,
        "needs_base": method.needs_base,
        "parameters": {parameter.name: parameter.schema for parameter in parameters(method)},
    }


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        words = [_words(option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return " | ".join(str(choice) for choice in schema["enum"])
    if schema.get("type") == "array":
        return "one per expert"
    if schema.get("type") == "object":
        return f"{_words(schema.get('additionalProperties', {}))} by name"
    return schema.get("type", "value") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        low = f" above {schema['exclusiveMinimum']:g}"
    else:
        low = f" from {schema['minimum']:g}" if "minimum" in schema else ""
    if "exclusiveMaximum" in schema:
        return f"{low} to below {schema['exclusiveMaximum']:g}"
    return f"{low} to {schema['maximum']:g}" if "maximum" in schema else low
