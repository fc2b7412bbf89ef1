"""Progress on stderr: a live display on a terminal, plain lines elsewhere, or one JSON object per event."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from supermerge.distributed import leads
from supermerge.events import subscribed


@contextmanager
def showing_progress(log_format: Literal["text", "json"], *, quiet: bool = False) -> Iterator[None]:
    """Show every event of the block; `quiet` leaves only warnings. Of several processes, the first one's are shown."""
    if not leads():
        yield
    elif log_format == "json":
        from supermerge.cli.progress_lines import JsonLines

        with subscribed(JsonLines(quiet=quiet)):
            yield
    elif sys.stderr.isatty() and not quiet:
        from supermerge.cli.progress_live import LiveProgress

        with LiveProgress() as progress, subscribed(progress):
            yield
    else:
        from supermerge.cli.progress_lines import TextLines

        with subscribed(TextLines(quiet=quiet)):
            yield
