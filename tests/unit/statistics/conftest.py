from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supermerge.recipe import Recipe
from supermerge.run.prepared import Prepared, prepared

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny example: base, two experts of different tasks, data, recipe."""
    spec = importlib.util.spec_from_file_location("make_tiny", ROOT / "examples" / "tiny" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("tiny")
    module.make(directory)
    return directory


@pytest.fixture
def ready(tiny: Path) -> Iterator[Prepared]:
    """Its recipe, opened, with a workbench."""
    with prepared(Recipe.load(tiny / "recipe.yaml")) as found:
        yield found


@pytest.fixture
def files() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
