"""The chat template of the output."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from supermerge.checkpoint.vocabulary import Files, content, read_object
from supermerge.errors import CheckpointError, RecipeError

_FILE = "chat_template.jinja"
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def with_template(asked: str | None, files: Files, models: Sequence[Files]) -> Files:
    """`files` with the chat template that the recipe asks for: `auto` (the one most models have), `chatml`, or text.

    Raises RecipeError for a name that is none of these, CheckpointError where there is no tokenizer to have it.
    """
    if asked is None:
        return files
    if asked == "auto":
        counts = Counter(template for template in map(_template, models) if template)
        if not counts:
            return files
        asked = counts.most_common(1)[0][0]
    elif asked == "chatml":
        asked = _CHATML
    elif "{" not in asked:
        raise RecipeError(
            f"chat_template: {asked!r} is neither auto nor chatml nor a template",
            hint="Write the template itself; mergekit's other built-in ones are not part of supermerge.",
        )
    config = read_object(files, "tokenizer_config.json")
    if config is None:
        raise CheckpointError(
            "chat_template: the output has no tokenizer_config.json, so no tokenizer to have a template",
            hint="Save the base's tokenizer beside it, or remove chat_template.",
        )
    config.pop("chat_template", None)
    kept = {name: file for name, file in files.items() if name != "chat_template.json"}
    return {**kept, "tokenizer_config.json": _text(config), _FILE: asked.encode()}


def _template(files: Files) -> str | None:
    written = content(files, _FILE)
    if written is not None:
        return written.decode("utf-8").strip()
    found = (read_object(files, "tokenizer_config.json") or {}).get("chat_template")
    if isinstance(found, list):
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    return found.strip() if isinstance(found, str) else None


def _text(config: dict[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
