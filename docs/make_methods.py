"""Writes docs/methods.md from the registry: `python docs/make_methods.py`."""

from __future__ import annotations

from pathlib import Path

from supermerge.cli.method_parameters import advice, parameters
from supermerge.methods import Method, get, names

PAGE = Path(__file__).with_name("methods.md")
HEAD = """# Methods

Made by `python docs/make_methods.py` from the registry; `supermerge methods NAME` shows the same.

θp is the base, τᵢ = θᵢ − θp the task vector of expert i, k the number of experts. Whatever a method does, tensors of
integers come from the base, arithmetic is fp32 or wider, and experts equal to the base give the base. Parameters of
"one per expert" take a number for all, or one for each in the order of the experts. Globs in `exclude` match names of
tensors.
"""


def page() -> str:
    """The whole page."""
    methods = [get(name) for name in names()]
    rows = [f"| [{method.name}](#{method.name}) | {method.title} | {method.data or 'none'} |" for method in methods]
    listing = "\n".join(["| method | title | data |", "|---|---|---|", *rows])
    return "\n".join([HEAD, listing + "\n", *map(section, methods)]).rstrip() + "\n"


def section(method: Method) -> str:
    """One method: equation, needs, cost, when to use it, parameters."""
    lines = [f"## {method.name}\n", f"**{method.title}**, <{method.paper}>\n", method.doc, ""]
    lines += [f"- {label}: {words}" for label, words in advice(method)]
    rows = [f"| `{each.name}` | {cell(each.default)} | {cell(each.words)} |" for each in parameters(method)]
    if rows:
        lines += ["", "| parameter | default | values |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that a cell of a table can hold."""
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
