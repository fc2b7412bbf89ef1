"""Merge fine-tuned experts into one model. The public API is here, loaded on first use: importing this is cheap."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supermerge.assemble import merge as merge
    from supermerge.learn import learn as learn
    from supermerge.plan import plan as plan
    from supermerge.run import compare as compare
    from supermerge.run import evaluate as evaluate
    from supermerge.run import run as run
    from supermerge.tasks.load import load as load

__version__ = "0.1.0"

_HOMES = {
    "merge": "supermerge.assemble",
    "learn": "supermerge.learn",
    "run": "supermerge.run",
    "plan": "supermerge.plan",
    "evaluate": "supermerge.run",
    "compare": "supermerge.run",
    "load": "supermerge.tasks.load",
}

__all__ = ["__version__", "compare", "evaluate", "learn", "load", "merge", "plan", "run"]


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the submodule `supermerge.run` would hide the public function of the same name.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'supermerge' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
