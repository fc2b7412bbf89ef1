"""Where things are kept that took long to make or fetch, so that a second run needs not."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$SUPERMERGE_CACHE`, else `$XDG_CACHE_HOME/supermerge`, else `~/.cache/supermerge`. It need not exist yet.

    A relative XDG_CACHE_HOME is ignored, as the XDG base directory specification says.
    """
    own = os.environ.get("SUPERMERGE_CACHE")
    if own:
        return Path(os.path.expanduser(own)).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return root / "supermerge"
