"""`supermerge methods`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from supermerge.cli.guard import guarded
from supermerge.cli.options import Debug, Json

if TYPE_CHECKING:
    from supermerge.methods import Method

_WIDTH_WITH_PAPERS = 115
"""From this width on the list has room for whole addresses on arXiv; longer ones take two lines."""


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one method and its parameters.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the merging methods, or explain one: equation, paper, needs, cost, when to use it, parameters."""
    with guarded(debug):
        from supermerge.cli.console import print_json
        from supermerge.cli.method_parameters import described
        from supermerge.methods import get, names

        if name is not None and as_json:
            print_json(described(get(name)))
        elif name is not None:
            _print_method(get(name))
        elif as_json:
            print_json([described(get(each)) for each in names()])
        else:
            _print_methods([get(each) for each in names()])


def _print_methods(listed: list[Method]) -> None:
    from rich.text import Text

    from supermerge.cli.console import console, plain_table

    out = console()
    # An address cut short is of no use, and the method's own page has it.
    papers = out.width >= _WIDTH_WITH_PAPERS
    table = plain_table("Method", "Title", "Data", *(["Paper"] if papers else []))
    table.columns[1].no_wrap = True
    for method in listed:
        cells = Text(method.name, "cyan"), method.title, method.data or "none"
        table.add_row(*cells, *([Text(method.paper, "dim", overflow="fold")] if papers else []))
    out.print(table)
    out.print(Text("\n`supermerge methods NAME` explains one: equation, paper, parameters.", "dim"))


def _print_method(method: Method) -> None:
    from rich.text import Text

    from supermerge.cli.console import console, plain_table
    from supermerge.cli.method_parameters import advice, parameters

    out = console()
    out.print(Text.assemble((method.title, "bold"), (f"  {method.paper}", "dim")))
    out.print()
    out.print(Text(_paragraphs(method.doc)))
    out.print()
    for label, words in advice(method):
        out.print(Text.assemble((f"{label}: ", "bold"), words))
    table = plain_table("Parameter", "Default", "Type")
    for parameter in parameters(method):
        table.add_row(Text(parameter.name, "cyan"), parameter.default, Text(parameter.words, "dim"))
    if table.row_count:
        out.print()
        out.print(table)


def _paragraphs(doc: str) -> str:
    """The text with one line per paragraph, for the console to wrap; indented lines (equations) stay as they are."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", doc)
