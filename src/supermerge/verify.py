"""Verify a merged model: re-read everything in its directory, and its inputs, and compare them with the lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from supermerge.checkpoint import Buffer, Checkpoint, TensorInfo, TensorSource, hash_shard, hash_stored
from supermerge.checkpoint.adapters import CONFIG_NAME, WEIGHTS_NAME, is_adapter, open_expert, read_settings
from supermerge.errors import CheckpointError, RefusedError
from supermerge.events import emit, phase
from supermerge.lock import LOCK_NAME, Lock, LockedSource, hash_file
from supermerge.lock_inputs import Inputs, reachable
from supermerge.recipe import Recipe
from supermerge.resolve import opened

# An error names at most so many differences; their number is always given.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Verified:
    """What was re-read and found to be as the lock file says.

    `inputs` were read again, `unreachable` ones are not where they were. `loads_as` is the class of transformers that
    has exactly these tensors, or says which adapter fits its base; None where config.json names no class that is
    installed, or the base is not there.
    """

    files: int
    tensors: int
    bytes_read: int
    inputs: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    loads_as: str | None = None


def verify(directory: str | os.PathLike[str]) -> Verified:
    """Compare every file and tensor of `directory`, and every input that is still there, with its lock file.

    RefusedError names what differs, is missing or was added, in the directory, in the inputs, or between the tensors
    and the class of transformers that config.json names; CheckpointError where there is no lock file.
    """
    path = Path(directory)
    lock = Lock.read(path)
    with phase("verify"):
        recipe, own = require_intact(path, lock)
        inputs = reachable(lock, recipe)
        changed, read = input_differences(lock, inputs)
        differences = [line for lines in changed.values() for line in lines]
        if is_adapter(path) and inputs.recipe is not None and not differences:
            own = replace(own, loads_as=require_fitting(path, inputs.recipe.base))
        _refuse(path, differences, "Inputs were changed after the run: the merge cannot be made again from them.")
    found = (*(["base"] if inputs.recipe else []), *(inputs.recipe.experts if inputs.recipe else ()))
    return replace(own, bytes_read=own.bytes_read + read, inputs=found, unreachable=inputs.unreachable)


def require_intact(path: Path, lock: Lock) -> tuple[Recipe, Verified]:
    """The directory itself against its lock file; its recipe, and what was read. RefusedError names what differs."""
    _refuse(path, list(_file_differences(path, lock)))
    recipe = Recipe.load(path / "recipe.yaml")
    with Checkpoint.open(weights_of(path)) as checkpoint:
        _refuse(path, list(_tensor_differences("tensor", checkpoint, lock.output.tensors)))
        loads_as = None if is_adapter(path) else require_loadable(checkpoint, whole=bool(recipe.tasks))
        files = [path / "recipe.yaml", *(path / name for name in lock.output.files)]
        size = sum(file.stat().st_size for file in files) + checkpoint.bytes_read
    return recipe, Verified(len(files), len(checkpoint.tensors), size, loads_as=loads_as)


def input_differences(lock: Lock, inputs: Inputs) -> tuple[dict[str, list[str]], int]:
    """What differs in the inputs that are there: lines by expert ("" is the base, or no one alone), and bytes read."""
    if inputs.recipe is None:
        return {}, 0
    try:
        with opened(inputs.recipe) as sources:
            found = {"": list(_changed("base", sources.base, lock.base))}
            for name, source in sources.locked.items():
                found[name] = [
                    *_changed(f"expert {name}", source, lock.experts[name]),
                    *_settings_changed(name, sources.experts[name], lock.experts[name]),
                ]
            read = sum(each.bytes_read for each in sources.inputs)
            return {name: lines for name, lines in found.items() if lines}, read
    except CheckpointError as error:
        return {"": [error.message]}, 0


def require_written(directory: Path, infos: Sequence[TensorInfo], hashes: Mapping[str, str]) -> dict[str, str]:
    """Read back what was just written: RefusedError unless it has these names, shapes and dtypes, and `hashes`.

    Gives the hash of every file that was read, by its name. Tensors without a hash are another process's to read back.
    """
    with Checkpoint.open(weights_of(directory)) as written:
        announced = {info.name: info for info in infos}
        differences = [
            f"tensor {name}: {written.tensors.get(name)} was read back, {announced.get(name)} was written"
            for name in sorted(announced.keys() | written.tensors.keys())
            if announced.get(name) != written.tensors.get(name)
        ]
        paths = [file.path for file in written.fingerprint()]
    files: dict[str, str] = {}
    for number, path in enumerate(paths if not differences else [], start=1):
        found = hash_shard(path, hashes)
        if found is not None:
            files[path.name], tensors = found
            differences += [f"tensor {name} has changed" for name, value in tensors.items() if hashes[name] != value]
        emit("progress", phase="verify", done=number, total=len(paths), unit="files")
    if differences:
        raise RefusedError(
            f"{directory}: the disk gives back other bytes than were written:\n" + "\n".join(differences[:_NAMED]),
            hint="The disk or the memory may be failing: write to another disk.",
        )
    return files


def weights_of(directory: Path) -> Path:
    """What holds the weights of a merge: its directory, or the file of an adapter."""
    return directory / WEIGHTS_NAME if is_adapter(directory) else directory


def require_fitting(directory: Path, base: str | Checkpoint) -> str:
    """What the adapter in `directory` is; CheckpointError where it does not fit `base`."""
    with ExitStack() as stack:
        model = stack.enter_context(Checkpoint.open(base))
        open_expert(directory, model, stack)
        return f"{read_settings(directory).kind} adapter of PEFT on {model.label}"


def require_loadable(checkpoint: Checkpoint, *, whole: bool) -> str | None:
    """The class of transformers that loads `checkpoint`, by name; None where config.json names none that is installed.

    RefusedError where `from_pretrained` would initialise a parameter or find another shape. With `whole` also where it
    would ignore a tensor, which a merge without tasks may have from its base.
    """
    from supermerge.tasks.loadable import loading_differences

    name, differences = loading_differences(checkpoint, whole=whole)
    if differences:
        listed = "\n".join(differences[:_NAMED])
        raise RefusedError(
            f"{checkpoint.label}: does not load whole as {name} of transformers:\n{listed}",
            hint="Part of the model would be initialised at random, or ignored: check the config.json of the base.",
        )
    return name


def _refuse(path: Path, differences: Sequence[str], hint: str = "") -> None:
    if differences:
        more = len(differences) - _NAMED
        listed = "\n".join(differences[:_NAMED]) + (f"\n… and {more} more" if more > 0 else "")
        raise RefusedError(
            f"{path}: not as {LOCK_NAME} says:\n{listed}",
            hint=hint or "Files were changed or damaged after the run. Run the recipe again to get the model back.",
        )


def _file_differences(path: Path, lock: Lock) -> Iterator[str]:
    files = {"recipe.yaml": lock.recipe, **lock.output.files}
    for number, (name, expected) in enumerate(files.items(), start=1):
        file = path / name
        if not file.is_file():
            yield f"{name} is missing"
        elif hash_file(file) != expected:
            yield f"{name} has changed"
        emit("progress", phase="verify", done=number, total=len(files), unit="files")
    for file in sorted(path.rglob("*.safetensors")):
        name = file.relative_to(path).as_posix()
        if lock.output.files and name not in lock.output.files:
            yield f"{name} was added"


def _tensor_differences(label: str, source: TensorSource, expected: Mapping[str, str]) -> Iterator[str]:
    yield from _changed_tensors(label, source, expected, list(source.tensors))
    for name in expected.keys() - source.tensors.keys():
        yield f"{label} {name} is missing"


def _changed_tensors(
    label: str, source: TensorSource, expected: Mapping[str, str], names: Sequence[str]
) -> Iterator[str]:
    buffer = Buffer()
    for number, name in enumerate(names, start=1):
        if name not in expected:
            yield f"{label} {name} was added"
        elif hash_stored(source, name, buffer) != expected[name]:
            yield f"{label} {name} has changed"
        emit("progress", phase="verify", done=number, total=len(names), unit="tensors")


def _settings_changed(name: str, expert: Checkpoint, locked: LockedSource) -> Iterator[str]:
    """Whether the config of an adapter is another: its weights then mean something else."""
    if locked.settings is not None and expert.directory is not None:
        path = expert.directory / CONFIG_NAME
        if not path.is_file() or hash_file(path) != locked.settings:
            yield f"expert {name}: {CONFIG_NAME} has changed"


def _changed(label: str, source: TensorSource, locked: LockedSource) -> Iterator[str]:
    """Of an input only the tensors that the run read count."""
    buffer = Buffer()
    for number, (name, expected) in enumerate(locked.tensors.items(), start=1):
        if name not in source.tensors:
            yield f"{label}: tensor {name} is missing"
        elif hash_stored(source, name, buffer) != expected:
            yield f"{label}: tensor {name} has changed"
        emit("progress", phase="verify", done=number, total=len(locked.tensors), unit="tensors")
