"""`supermerge methods`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json

if TYPE_CHECKING:
    from supermerge.methods import Method


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one method and its parameters.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the merging methods, or explain one: its equation, its paper, its parameters."""
    with guarded(debug):
        from supermerge.cli.console import print_json
        from supermerge.methods import get, names

        if name is not None:
            method = get(name)
            if as_json:
                print_json(_described(method))
            else:
                _print_method(method)
            return
        listed = [get(each) for each in names()]
        if as_json:
            print_json([_described(method) for method in listed])
        else:
            _print_methods(listed)


def _described(method: Method) -> dict[str, Any]:
    schema = method.parameters.model_json_schema()
    return {
        "name": method.name,
        "title": method.title,
        "kind": method.kind,
        "paper": method.paper,
        "description": method.doc,
        "needs_base": method.needs_base,
        "parameters": schema.get("properties", {}),
    }


def _print_methods(listed: list[Method]) -> None:
    from rich.text import Text

    from supermerge.cli.console import console, plain_table

    table = plain_table("Method", "Title", "Data", "Paper")
    for method in listed:
        data = method.learned.data if method.learned else "none"
        table.add_row(Text(method.name, "cyan"), method.title, data, Text(method.paper, "dim"))
    console().print(table)
    console().print(Text("\n`supermerge methods NAME` explains one: equation, paper, parameters.", "dim"))


def _print_method(method: Method) -> None:
    from rich.text import Text

    from supermerge.cli.console import console, plain_table

    out = console()
    out.print(Text.assemble((method.title, "bold"), (f"  {method.paper}", "dim")))
    out.print()
    out.print(Text(method.doc))
    fields = method.parameters.model_fields
    if not fields:
        return
    table = plain_table("Parameter", "Default", "Type")
    for parameter, field in fields.items():
        default = "required" if field.is_required() else str(field.default)
        table.add_row(Text(parameter, "cyan"), default, Text(_type_name(method, parameter), "dim"))
    out.print()
    out.print(table)


def _type_name(method: Method, parameter: str) -> str:
    """The type in the words of JSON schema: a person reads `number, 0 to 1` more easily than an annotation."""
    return _schema_words(method.parameters.model_json_schema()["properties"][parameter])


def _schema_words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        words = [_schema_words(option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return " | ".join(str(choice) for choice in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_schema_words(schema.get('items', {}))}s, one per expert"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    above = f" from {low:g}" if low is not None else ""
    below = f" to {high:g}" if high is not None else ""
    return f"{schema.get('type', 'value')}{above}{below}"
