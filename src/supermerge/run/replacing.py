"""What a run must not lose when it replaces an older output."""

from __future__ import annotations

from pathlib import Path

from supermerge.errors import CheckpointError, ResourceError
from supermerge.lock import LOCK_NAME, Lock

# What a run writes and its lock does not name, and what is measured of a merge that is an expert of another.
_JOURNAL, _STATISTICS = "run.jsonl", "statistics"
_LEFT_BY_FILE_MANAGERS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_NAMED = 3


def require_nothing_foreign(directory: Path) -> None:
    """ResourceError where a directory that a run wrote holds what no run did: replacing it would delete that.

    A directory without a readable lock is `OutputDirectory`'s to judge.
    """
    try:
        lock = Lock.read(directory)
    except CheckpointError:
        return
    known = {LOCK_NAME, "recipe.yaml", *lock.output.files}
    places = [place.relative_to(directory) for place in sorted(directory.rglob("*")) if not place.is_dir()]
    foreign = [
        place
        for place in places
        if place.as_posix() not in known
        and place.name not in {_JOURNAL, *_LEFT_BY_FILE_MANAGERS}
        and place.parts[0] != _STATISTICS
    ]
    if lock.output.files and foreign:
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise ResourceError(
            f"{directory}: holds {', '.join(str(place) for place in foreign[:_NAMED])}{more}, which {LOCK_NAME} does "
            "not name: replacing it would delete what no run wrote",
            hint="Move that elsewhere, or choose another output.",
        )
