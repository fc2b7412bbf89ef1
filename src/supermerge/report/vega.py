"""The script that draws charts in a page: Vega, Vega-Lite and Vega-Embed, as one."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from supermerge.cache import cache_directory


def is_kept() -> bool:
    """Whether the script lies in the cache."""
    return _place().exists()


def _place() -> Path:
    return cache_directory() / f"vega-{version('vl-convert-python')}.js"


@cache
def vega() -> str:
    """The script, which defines `vegaEmbed`.

    It is the same every time and takes a second and a half to put together, so it is kept in the cache.
    """
    kept = _place()
    if kept.exists():
        return kept.read_text("utf-8")
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    _keep(kept, script)
    return script


def _keep(path: Path, script: str) -> None:
    """Put the script into the cache, whole or not at all; a cache that cannot be written is no reason to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            file.write(script)
        os.replace(file.name, path)
    except OSError:
        return
