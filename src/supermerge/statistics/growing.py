"""Gram matrices of layers whose predecessors are merged already: measured while the merge grows, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import Tensor, nn

from supermerge.assemble import assemble
from supermerge.cache import cache_directory
from supermerge.checkpoint import Checkpoint, Match, TensorSource
from supermerge.checkpoint.composed import Composed
from supermerge.errors import DataError
from supermerge.events import phase
from supermerge.methods import Bound
from supermerge.methods.layers import layer_of
from supermerge.statistics.examples import chosen_rows, encoded
from supermerge.statistics.file import About, save
from supermerge.statistics.filed import layerwise_by_file
from supermerge.statistics.forward import Enough, watch
from supermerge.statistics.gram import Grams
from supermerge.statistics.linears import shared_linears
from supermerge.statistics.measure import Setup
from supermerge.statistics.stored import Part, Stored

if TYPE_CHECKING:
    from supermerge.tasks.encode import Example
    from supermerge.tasks.workbench import Workbench

Examples = Mapping[str, Sequence["Example"]]


def growing_grams(kind: str, bound: Bound, setup: Setup, files: ExitStack) -> list[Part]:
    """Per expert, the Gram matrices that `bound`, which needs them, merges with; in files that `files` deletes.

    The workbench holds the merge as it grows: one model, whatever the number of experts. Raises DataError where an
    expert has no examples.
    """
    bench, examples = setup.bench, {}
    for expert in setup.sources:
        rows = chosen_rows(kind, bench, expert, setup.rows, setup.seed) if bench else {}
        if bench is None or not rows:
            raise DataError(
                f"expert {expert!r}: no task has examples, and {bound.method.name} looks at examples while it merges.",
                hint="Give a task with this expert validation or unlabelled examples, or use regmean.",
            )
        examples[expert] = encoded(bench, rows)
    assert bench is not None
    home = cache_directory() / "statistics"
    home.mkdir(parents=True, exist_ok=True)
    directory = Path(files.enter_context(TemporaryDirectory(dir=home, prefix="growing-")))
    with phase("statistics", expert="all", statistic=kind):
        found = _Growth(kind, bound, setup, bench, examples, directory, files).grown()
    return [Part(Composed(f"{kind} of {expert}", parts), 1.0, turned) for expert, (parts, turned) in found.items()]


class _Growth:
    def __init__(
        self,
        kind: str,
        bound: Bound,
        setup: Setup,
        bench: Workbench,
        examples: Mapping[str, Examples],
        directory: Path,
        files: ExitStack,
    ) -> None:
        self._kind, self._bound, self._setup, self._bench = kind, bound, setup, bench
        self._examples, self._directory, self._files = examples, directory, files
        # What an expert lacks stays as the base has it.
        shared = set(bench.merged_names).intersection(*(source.tensors for source in setup.sources.values()))
        self._names = [name for name, info in setup.base.tensors.items() if name in shared and info.is_floating]

    def grown(self) -> dict[str, tuple[dict[str, tuple[TensorSource, str]], frozenset[str]]]:
        """Expert → where its matrices lie, and which of their weights are stored as [inputs, outputs]."""
        found = {expert: (dict[str, tuple[TensorSource, str]](), frozenset[str]()) for expert in self._setup.sources}
        stages: dict[str, list[str]] = {}
        for name in self._names:
            stages.setdefault(_stage(name), []).append(name)
        self._bench.load(self._setup.base)
        order = self._order()
        # What is in no linear layer needs no inputs: all starts as the mean of the experts.
        for names in stages.values():
            self._write(names, {expert: Part(Composed("nothing yet", {}), 1.0) for expert in found})
        for place, stage in enumerate(order):
            parts: dict[str, Part] = {}
            for number, (expert, source) in enumerate(self._setup.sources.items()):
                self._bench.load(source, stages[stage])
                grams = self._seen(self._examples[expert], stage, set(order[place + 1 :]))
                path = self._directory / f"{place}-{number}.safetensors"
                by_file = layerwise_by_file(self._bench.binding, grams.means)
                means = {name: grams.means[name] for name in grams.inputs_first}
                turned = tuple(layerwise_by_file(self._bench.binding, means))
                about = About(
                    kind=self._kind, model="", data="", examples=0, size=1.0, inputs_first=turned, names=tuple(by_file)
                )
                save(path, about, by_file)
                stored = self._files.enter_context(Checkpoint.open(path))
                parts[expert] = Part(stored, 1.0, frozenset(turned))
                places, before = found[expert]
                places |= {name: (stored, name) for name in by_file}
                found[expert] = places, before | parts[expert].inputs_first
            self._write(stages[stage], parts)
        return found

    def _order(self) -> list[str]:
        """The stages that have linear layers, in the order in which a forward pass comes to them."""
        order: dict[str, None] = {}

        def see(name: str, module: nn.Module, rows: Tensor) -> None:
            for file_name in self._files_of(name):
                order.setdefault(_stage(file_name))

        for examples in self._examples.values():
            watch(self._bench, {task: part[:1] for task, part in examples.items()}, shared_linears, see)
        return list(order)

    def _seen(self, examples: Examples, stage: str, later: set[str]) -> Grams:
        """The inputs of the linear layers of one stage; what comes later is not computed."""
        grams = Grams()
        stage_of = {
            name: _stage(file_name)
            for task in examples
            for name, _ in shared_linears(self._bench, task)
            for file_name in self._files_of(name)
        }

        def see(name: str, module: nn.Module, rows: Tensor) -> None:
            if stage_of.get(name) == stage:
                grams.see(name, module, rows)
            elif stage_of.get(name) in later:
                raise Enough

        watch(self._bench, examples, shared_linears, see)
        return grams

    def _files_of(self, name: str) -> tuple[str, ...]:
        """The file tensor that a weight is stored as, where it is stored as it is loaded."""
        made = self._bench.binding.made.get(name)
        return () if made is None or made.route.converter is not None else made.route.sources

    def _write(self, names: Sequence[str], parts: Mapping[str, Part]) -> None:
        """Merge the tensors called `names`, and put them into the model."""
        measured = Stored({self._kind: list(parts.values())})
        match = Match(self._setup.base, dict(self._setup.sources), list(names), [], {}, {}, {}, [])
        merged = Checkpoint.open(dict(assemble(self._bound.with_statistics(measured), match, seed=self._setup.seed)))
        base = self._setup.base
        whole = {name: (merged if name in merged.tensors else base, name) for name in base.tensors}
        self._bench.load(Composed("the merge as it grows", whole), names)


def _stage(name: str) -> str:
    """What is merged in one go: a numbered layer, or a module that is in none."""
    return layer_of(name) or name.rpartition(".")[0]
