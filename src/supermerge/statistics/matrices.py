"""Matrices of all linear layers in bounded memory: as many at a time as fit, with one pass over the examples each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import Tensor, nn

from supermerge.checkpoint import Checkpoint, save_tensors
from supermerge.methods import KINDS
from supermerge.statistics.budget import MATRICES_BYTES
from supermerge.statistics.filed import layerwise_by_file
from supermerge.statistics.gradient_gram import gradient_grams
from supermerge.statistics.gram import input_grams
from supermerge.statistics.linears import inputs_first, shared_linears

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench


class OnDisk(Mapping[str, Tensor]):
    """Tensors of several files, read when asked for."""

    def __init__(self, files: Sequence[Checkpoint]) -> None:
        self._places = {name: file for file in files for name in file.tensors}

    def __getitem__(self, name: str) -> Tensor:
        return self._places[name].read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def matrices(
    bench: Workbench,
    kind: str,
    examples: Mapping[str, Sequence[Example]],
    seed: int,
    scratch: Path,
    files: ExitStack,
    *,
    budget: int = MATRICES_BYTES,
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """By file name, and the file names of the weights that are stored as [inputs, outputs].

    What does not fit into `budget` bytes waits in a directory in `scratch`, until `files` is closed. How the layers are
    divided changes no bit.
    """
    turned: list[str] = []

    def measured(group: frozenset[str]) -> dict[str, Tensor]:
        if KINDS[kind].side == "outputs":
            return layerwise_by_file(bench.binding, gradient_grams(bench, kind, examples, seed, group))
        found, transposed = input_grams(bench, examples, group)
        turned.extend(layerwise_by_file(bench.binding, {name: found[name] for name in transposed}))
        return layerwise_by_file(bench.binding, found)

    groups = _groups(bench, kind, examples, budget)
    if len(groups) == 1:
        return measured(groups[0]), tuple(turned)
    scratch.mkdir(parents=True, exist_ok=True)
    directory = Path(files.enter_context(TemporaryDirectory(dir=scratch, prefix="parts-")))
    parts: list[Checkpoint] = []
    for number, group in enumerate(groups):
        by_file = measured(group)
        if by_file:
            path = directory / f"{number}.safetensors"
            save_tensors(path, {name: matrix.cpu() for name, matrix in by_file.items()})
            parts.append(files.enter_context(Checkpoint.open(path)))
    return OnDisk(parts), tuple(turned)


def _groups(
    bench: Workbench, kind: str, examples: Mapping[str, Sequence[Example]], budget: int
) -> list[frozenset[str]]:
    """The weights of all linear layers, in order, in groups whose matrices fit into `budget` together."""
    sizes: dict[str, int] = {}
    for task in examples:
        for name, module in shared_linears(bench, task):
            sizes[name] = 4 * _side(kind, module) ** 2
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if groups[-1] and used + size > budget:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return [frozenset(group) for group in groups]


def _side(kind: str, module: nn.Module) -> int:
    outputs, inputs = module.get_parameter("weight").shape
    return outputs if (KINDS[kind].side == "outputs") != inputs_first(module) else inputs
