"""What a method needs and its parameters in words, from the registry and the signature that define them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    document = model.model_json_schema()
    parts = document.get("$defs", {})
    for name, field in model.model_fields.items():
        default = getattr(settings, name) if settings else field.default
        written = {} if field.is_required() else {"default": default}
        schema = {**_whole(document["properties"][name], parts), **written}
        yield Parameter(name, "required" if field.is_required() else _shown(default), _words(schema), schema)


def needs(method: Method) -> str:
    """The experts and the data that a method needs, and whether the base matters."""
    if method.most is None:
        experts = "1 expert or more" if method.least == 1 else f"{method.least} experts or more"
    elif method.least == method.most:
        experts = "exactly 1 expert" if method.most == 1 else f"exactly {method.most} experts"
    else:
        experts = f"{method.least} to {method.most} experts"
    base = "a base" if method.needs_base else "a base for names and types (its values do not matter)"
    examples = f"{method.data} examples of every task" if method.data else "no data"
    return f"{base}, {experts}, {examples}."


def advice(method: Method) -> list[tuple[str, str]]:
    """(label, words): what the method needs and costs, when to use it and when not."""
    lines = [("Needs", needs(method)), ("Cost", method.cost), ("Use it for", method.use), ("Not for", method.avoid)]
    if method.process:
        lines.append(("To learn on", f"`on: {method.name}` learns coefficients on what it makes of every task vector."))
    return [(label, words) for label, words in lines if words]


def described(method: Method) -> dict[str, Any]:
    """The method as JSON values."""
    return {
        "name": method.name,
        "title": method.title,
        "kind": method.kind,
        "data": method.data,
        "paper": method.paper,
        "description": method.doc,
        "needs_base": method.needs_base,
        "experts": {"least": method.least, "most": method.most},
        "cost": method.cost,
        "use": method.use,
        "avoid": method.avoid,
        "parameters": {parameter.name: parameter.schema for parameter in parameters(method)},
    }


def _whole(schema: Any, parts: Mapping[str, Any]) -> Any:
    """A schema with what it refers to in its place, so that it stands on its own."""
    if isinstance(schema, list):
        return [_whole(each, parts) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _whole(parts[schema["$ref"].rpartition("/")[2]], parts)
    return {key: _whole(value, parts) for key, value in schema.items()}


def _shown(default: Any) -> str:
    """A default as a recipe would write it."""
    if isinstance(default, tuple):
        return ", ".join(map(str, default)) or "none"
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        words = [_words(option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return " | ".join(str(choice) for choice in schema["enum"])
    if schema.get("type") == "array":
        return "list of globs" if schema["items"].get("type") == "string" else "one per expert"
    if "properties" in schema:
        return f"keys {', '.join(schema['properties'])}"
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
