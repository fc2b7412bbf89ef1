"""Files that go into an output directory as they are: linked where the disk allows it, else copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

GROUPS = "groups"
"""Where the merges of a tree's groups lie in the output directory."""
_LONGEST = 120


def carry(source: Path, target: Path) -> None:
    """Put the file or directory `source` at `target`, below which nothing exists yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        _link(source, target)


def carry_groups(groups: Mapping[str, Path], staging: Path) -> None:
    """Put the groups' merges into the output, each with the model's config, so that transformers loads them."""
    for name, directory in groups.items():
        short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{blake3(name.encode()).hexdigest()[:8]}"
        carry(directory, staging / GROUPS / short)
        if (staging / "config.json").exists():
            shutil.copyfile(staging / "config.json", staging / GROUPS / short / "config.json")


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
