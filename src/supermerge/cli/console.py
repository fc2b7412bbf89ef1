"""Where results go: stdout, as text for people or as one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 160


class _Results(Console):
    def on_broken_pipe(self) -> None:
        """A reader that went away is `guarded`'s to deal with; rich would end with exit code 1."""
        raise BrokenPipeError


def console() -> Console:
    """The console for results. Numbers are not coloured by guesswork; tables are not squeezed where nobody looks."""
    return _Results(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print `value` as exactly one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def short_path(path: str | Path) -> str:
    """A path as one would type it here: relative where that is shorter. What is no absolute path stays as it is."""
    text = str(path)
    relative = os.path.relpath(text) if os.path.isabs(text) else text
    return relative if len(relative) < len(text) else text


def plain_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table with thin lines; the columns in `numbers` are aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    return table
