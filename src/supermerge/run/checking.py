"""`verify --check`: merge again from what the lock file names, writing nothing, and compare every hash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from torch import Tensor

from supermerge.assemble import Choice, at_most_threads
from supermerge.assemble.workers import default_threads
from supermerge.checkpoint.hashing import tensor_bytes
from supermerge.errors import CheckpointError, RefusedError
from supermerge.events import phase
from supermerge.learn import Coefficients
from supermerge.learn.basis import Basis
from supermerge.learn.file_merge import file_coefficients, merge_of
from supermerge.lock import LOCK_NAME, Lock
from supermerge.lock_inputs import reachable
from supermerge.methods import Bound, get
from supermerge.plan import plan
from supermerge.plan.memory import OFFLOAD
from supermerge.recipe import Recipe
from supermerge.resolve import chosen_methods, learn_settings
from supermerge.resources import existing_directory
from supermerge.run.adapter import adapter_of_recipe
from supermerge.run.environment import versions
from supermerge.run.learned import basis_of
from supermerge.run.measuring import measured
from supermerge.run.output import COEFFICIENTS, merge_all
from supermerge.run.prepared import Prepared, prepared


@dataclass(slots=True)
class _Hashes:
    """A sink that keeps the hash of every tensor and nothing else; the pieces of one name come in order."""

    hashers: dict[str, blake3] = field(default_factory=dict)

    def write_flat(self, name: str, start: int, tensor: Tensor) -> None:
        """Elements from `start` on of the flattened tensor."""
        self.hashers.setdefault(name, blake3()).update(tensor_bytes(tensor))


def check(directory: str | os.PathLike[str]) -> int:
    """Merge again, with the learned coefficients in `directory` where there are some; how many tensors are the same.

    Raises CheckpointError where an input is not there any more, RefusedError where a merged tensor differs, naming the
    versions that do.
    """
    path = Path(directory)
    lock, recipe = Lock.read(path), Recipe.load(path / "recipe.yaml")
    inputs = reachable(lock, recipe)
    if inputs.recipe is None or inputs.unreachable:
        places = {"base": lock.base.ref, **{name: source.ref for name, source in lock.experts.items()}}
        lost = ", ".join(f"{name} ({places[name]})" for name in inputs.unreachable)
        raise CheckpointError(
            f"{path}: cannot be merged again: these inputs are not there: {lost}",
            hint="Put them back where they were, or download them again.",
        )
    # Only statistics are measured again, or recognised, by the rows.
    with_rows = any(bound.kinds for bound in (*chosen_methods(inputs.recipe).bounds, *_makers(inputs.recipe)))
    bounded = inputs.recipe.memory is not None
    threads = plan(inputs.recipe).threads if bounded else default_threads()
    # Statistics are measured with a model, which a budget may not have room for.
    residency = OFFLOAD if bounded and with_rows else None
    with (
        phase("check"),
        at_most_threads(threads),
        prepared(inputs.recipe, residency, with_rows=with_rows, scratch=existing_directory(path)) as ready,
    ):
        sink = _Hashes()
        with _choice(path, ready) as chosen, measured(ready, chosen) as choice:
            merge_all(sink, ready, choice, adapter_of_recipe(ready))
    found = {name: hasher.hexdigest() for name, hasher in sink.hashers.items()}
    empty = blake3().hexdigest()
    differing = [name for name, expected in lock.output.tensors.items() if found.get(name, empty) != expected]
    if differing:
        raise RefusedError(
            f"{path}: merged again, {len(differing)} of {len(lock.output.tensors)} tensors differ from {LOCK_NAME}: "
            f"{', '.join(differing[:5])}{' …' if len(differing) > 5 else ''}",
            hint=_versions(lock) or "The same versions gave other bytes: please report this.",
        )
    return len(lock.output.tensors)


def _makers(recipe: Recipe) -> list[Bound]:
    """The methods that make the vectors of a learned merge."""
    settings = learn_settings(recipe)
    return [] if settings is None else Basis.of(settings, list(recipe.experts)).members


@contextmanager
def _choice(path: Path, ready: Prepared) -> Iterator[Choice]:
    chosen, method, settings = ready.opened.choice, get(ready.recipe.method.name), learn_settings(ready.recipe)
    if settings is None:
        yield chosen
        return
    coefficients = Coefficients.load(path / COEFFICIENTS)
    binding = ready.require_bench(f"method {method.name}").binding
    with basis_of(ready, settings) as basis:
        learned = merge_of(method, basis, file_coefficients(coefficients, binding, ready.opened.base))
        yield Choice(learned, chosen.rules, chosen.by_name)


def _versions(lock: Lock) -> str:
    """Which versions differ from those of the run."""
    here = versions()
    other = [
        f"{name} {lock.versions.get(name)} then, {here[name]} now"
        for name in here
        if lock.versions.get(name) != here[name]
    ]
    return f"Versions differ: {'; '.join(other)}." if other else ""
