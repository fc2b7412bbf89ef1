"""`--set key.key=value`: change a recipe without editing its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from supermerge.errors import UsageError
from supermerge.yaml_file import read_yaml


def apply_overrides(recipe: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`recipe` with each `key.key=value` applied in order; the value is YAML, list items are counted from 0."""
    changed = dict(recipe)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not (equals and key.strip()):
            raise UsageError(f"--set {override!r}: expected key=value", hint="For example --set method.steps=50.")
        changed = _with(changed, key.strip(), _value(text, f"--set {key.strip()}"), override)
    return changed


def _value(text: str, where: str) -> Any:
    # Globs such as *.bias would be aliases, which have nothing to refer to here.
    return text if text.startswith("*") else read_yaml(text, where).value


def _with(part: Any, key: str, value: Any, override: str) -> Any:
    """A copy of `part` in which the item at the dotted `key` is `value`."""
    if isinstance(part, list):
        head, _, rest = key.partition(".")
        if not (head.isdigit() and int(head) < len(part)):
            raise UsageError(f"--set {override!r}: expected the number of an item below {len(part)}, found {head!r}")
        items = list(part)
        items[int(head)] = _with(items[int(head)], rest, value, override) if rest else value
        return items
    if part is None:
        part = {}
    if not isinstance(part, Mapping):
        raise UsageError(f"--set {override!r}: {key!r} is below a plain value, {part!r}, which has no keys")
    # A name may itself contain dots (qwen2.5): an existing key wins, the longest first.
    pieces = key.split(".")
    starts = [".".join(pieces[:count]) for count in range(len(pieces), 0, -1)]
    head = next((start for start in starts if start in part), pieces[0])
    rest = key[len(head) + 1 :]
    return {**part, head: _with(part.get(head), rest, value, override) if rest else value}
