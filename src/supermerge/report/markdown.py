"""Text from outside made harmless inside Markdown: it shows as it is and opens no link, image, table or HTML."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

# Backslash, code, emphasis, links and images, HTML, issue numbers, cells, strike-through, entities, mentions, formulas;
# and the colon of an address or emoji.
_PUNCTUATION = re.compile(r"([\\`*_\[\]<>#|~&@$]|:(?=\S))")


def escaped(text: str) -> str:
    """One line of plain text: control characters become spaces, punctuation that means something is escaped."""
    line = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    line = _PUNCTUATION.sub(r"\\\1", " ".join(line.split()))
    # Bare addresses become links on many sites, even without a scheme.
    return re.sub(r"\bwww\.", r"www\\.", line, flags=re.IGNORECASE)


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, *(run + 1 for run in runs)) if runs else "```"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def url(address: str) -> str:
    """An address that cannot end the link it stands in."""
    return quote(address, safe=":/?#[]@!$&'*+,;=%~-._")
