"""The house of docs/architecture.md: six floors, arrows only downwards, no circles, torch only where needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import supermerge

ROOT = Path(supermerge.__file__).parent

FLOORS = (
    {"accelerator", "cache", "distributed", "errors", "events", "sizes", "resources"},
    {"checkpoint", "methods", "offload", "tasks", "report", "yaml_file"},
    {"recipe", "recipe_errors", "recipe_overrides", "recipe_paths", "lock", "assemble", "statistics", "mergekit"},
    {"learn", "dynamic", "plan", "resolve", "relation", "inspection", "lock_inputs", "verify"},
    {"run"},
    {"cli", "demo", "__main__"},
)
# The public API points at every floor, lazily.
OUTSIDE = {"__init__"}


def unit(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Every unit of supermerge that a file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import on line {node.lineno}"
            module = node.module or ""
            found |= {f"supermerge.{name.name}" for name in node.names} if module == "supermerge" else {module}
    parts = [name.split(".") for name in found]
    return {part[1] for part in parts if part[0] == "supermerge" and len(part) > 1} - {"__version__"}


GRAPH: dict[str, set[str]] = {}
for _path in sorted(ROOT.rglob("*.py")):
    GRAPH.setdefault(unit(_path), set()).update(imported_units(_path) - {unit(_path)})


def floor(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def test_every_unit_has_a_floor() -> None:
    assert set(GRAPH) - OUTSIDE <= set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(set(GRAPH) - OUTSIDE))
def test_arrows_point_down(name: str) -> None:
    assert {other for other in GRAPH[name] if floor(other) > floor(name)} == set()


def test_no_circles() -> None:
    above: list[str] = []
    done: set[str] = set()

    def visit(name: str) -> None:
        assert name not in above, f"circle: {' -> '.join([*above, name])}"
        if name in done:
            return
        above.append(name)
        for other in sorted(GRAPH.get(name, set())):
            visit(other)
        above.pop()
        done.add(name)

    for name in sorted(set(GRAPH) - OUTSIDE):
        visit(name)


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import supermerge", {"torch", "numpy", "pydantic", "yaml", "rich", "typer"}),
        ("import supermerge.errors, supermerge.events", {"torch", "numpy", "pydantic"}),
        ("import supermerge.recipe", {"torch", "numpy", "transformers", "datasets", "pandas"}),
        ("import supermerge.cli.main", {"torch", "numpy", "pydantic", "transformers", "datasets", "pandas"}),
        ("import supermerge.plan", {"transformers", "datasets", "pandas", "torchmetrics", "altair"}),
    ],
)
def test_imports_are_lazy(statement: str, unwanted: set[str]) -> None:
    assert loaded_by(statement) & unwanted == set()
