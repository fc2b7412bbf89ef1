"""What a run takes over from the directory that it replaces, when an expert is added to a merge or removed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supermerge.events import emit
from supermerge.learn.given_start import Given
from supermerge.lock import Change
from supermerge.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Earlier:
    """The merge so far.

    `given` is where learning starts, by expert. `newcomers` are the experts that no run has looked at yet. `carried`
    are files and directories that go into the output as they are: place in it → what to put there. `written` is the
    recipe as the output has it, where that names places in the output itself. `key` says which merge it was.
    """

    history: tuple[Change, ...]
    key: str
    newcomers: tuple[str, ...] = ()
    given: Mapping[str, Given] = field(default_factory=dict)
    carried: Mapping[str, Path] = field(default_factory=dict)
    written: Recipe | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def announce(self) -> None:
        """Say what the user should know about how the merge goes on."""
        for message in self.notes:
            emit("note", message=message)
        for message in self.warnings:
            emit("warning", message=message)
