"""YAML as a recipe needs it: line numbers kept, duplicate keys refused, and `on`, `no`, `1e-3` read as YAML 1.2 does.

YAML 1.1, PyYAML's default, reads `on:` as true, `no` as false, `1e-3` as a string, `010` as 8 and `1:30` as 90.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from supermerge.errors import RecipeError

Path = tuple[str | int, ...]

# More nodes than any recipe has: aliases that expand without end stop here.
_MAX_NODES = 100_000


@dataclass(frozen=True, slots=True)
class Document:
    """The `value` of a YAML document and the line (from 1) of every key and list item in it."""

    value: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it that was written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2; keys are always strings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what either version of YAML would not read as a string."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Unquoted, these would be taken for the ends of lines.
    style = '"' if any(mark in text for mark in "\r\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)

_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(text: str, where: str) -> Document:
    """The document in `text`; RecipeError, with `where` and the line, where it is not one."""
    documents = read_documents(text, where)
    if len(documents) > 1:
        raise RecipeError(f"{where}: expected a single document, found {len(documents)}, separated by ---")
    return documents[0]


def read_documents(text: str, where: str) -> list[Document]:
    """The documents in `text`, at least one; RecipeError, with `where` and the line, where it is not YAML."""
    try:
        loader = _Loader(text)
        found: list[Document] = []
        while not found or loader.check_node():
            node = loader.get_node() if loader.check_node() else None
            lines: dict[Path, int] = {}
            for path, line in _lines(node, (), where, frozenset()):
                lines[path] = line
                if len(lines) > _MAX_NODES:
                    raise RecipeError(f"{where}: aliases expand to more than {_MAX_NODES:,} entries")
            found.append(Document(loader.construct_document(node) if node is not None else None, lines))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        hint = "Check the indentation there, and put text with ? : # { [ into quotes."
        raise RecipeError(f"{where}{place}: not valid YAML: {problem}", hint=hint) from error
    except RecursionError as error:
        raise RecipeError(f"{where}: lists and mappings are nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{where}: not valid YAML: {error}") from error
    return found


def write_yaml(value: Any) -> str:
    """`value` as YAML text that `read_yaml` reads back to the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _lines(node: yaml.Node | None, path: Path, where: str, around: frozenset[int]) -> Iterator[tuple[Path, int]]:
    """Every path below `node` with its line; refuses duplicate keys and aliases that contain themselves."""
    if node is None:
        return
    if id(node) in around:
        raise RecipeError(f"{where}, line {node.start_mark.line + 1}: an alias contains itself")
    around = around | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _lines(item, (*path, index), where, around)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"{where}, line {line}: a key is a list or a mapping; write a plain word")
            if key.value in seen:
                first = seen[key.value]
                raise RecipeError(
                    f"{where}, line {line}: key {key.value!r} appears twice; the first is on line {first}",
                    hint="Keep one of them.",
                )
            seen[key.value] = line
            yield (*path, key.value), line
            yield from _lines(value, (*path, key.value), where, around)
