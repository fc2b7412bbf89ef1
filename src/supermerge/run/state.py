"""Where an interrupted run keeps its state: a hidden sibling of the output directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from supermerge.errors import InterruptedRun, NetworkError, ResourceError, SupermergeError

_PASSING = (InterruptedRun, NetworkError, ResourceError)


class StateDirectory:
    """States are saved in `path`, which is made when first needed. What an earlier run left there
    is kept, or with `keep=False` deleted first.

    It outlives an interrupted run, and one that lacked memory, disk or network, so that the next one can go on. Other
    errors delete it: a run that mends them is another one. So do `discard`, and leaving it empty.
    """

    def __init__(self, output: Path, *, keep: bool) -> None:
        output = Path(output).absolute()
        self.path = output.with_name(f".{output.name}.supermerge-state")
        self._gone = self.path.with_name(f"{self.path.name}.deleted")
        self._keep = keep

    def __enter__(self) -> Self:
        self._delete_gone()
        if not self._keep:
            self.discard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mendable = isinstance(error, SupermergeError) and not isinstance(error, _PASSING)
        if mendable or (self.path.is_dir() and not any(self.path.iterdir())):
            self.discard()

    def discard(self) -> None:
        """Delete the state; what a kill leaves of it has another name, and is not taken for a state."""
        if self.path.is_dir():
            self.path.rename(self._gone)
            self._delete_gone()

    def _delete_gone(self) -> None:
        if self._gone.is_dir():
            shutil.rmtree(self._gone)
