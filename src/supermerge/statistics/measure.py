"""One kind of statistics of one expert: read where it was measured before, measured where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supermerge.checkpoint import Checkpoint, TensorSource
from supermerge.events import emit, phase
from supermerge.methods import KINDS
from supermerge.statistics.examples import LearningRows, chosen_rows, encoded
from supermerge.statistics.file import About, checked, directories, file_name, only_file, root_mean_square, save
from supermerge.statistics.fingerprints import data_fingerprint, model_fingerprint
from supermerge.tasks.rows import Row

if TYPE_CHECKING:
    from supermerge.tasks.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Setup:
    """What statistics are measured of, and on which examples.

    `sources` are the experts under the base's names, `checkpoints` the same as they are stored; `rows` are the rows
    that may be learned from, by task. Without a `bench`, or without rows, statistics must lie beside the experts. The
    weights on the bench are overwritten.
    """

    bench: Workbench | None
    base: Checkpoint
    sources: Mapping[str, TensorSource]
    checkpoints: Mapping[str, Checkpoint]
    rows: Mapping[str, LearningRows]
    seed: int

    def file(self, kind: str, expert: str) -> Path:
        """The file of `kind` of `expert` ("" for the base), checked; made where there is none.

        Raises CheckpointError for statistics of another model, DataError for those of other examples and where there is
        nothing to measure them on.
        """
        source = self.sources[expert] if expert else self.base
        checkpoint = self.checkpoints[expert] if expert else self.base
        rows = chosen_rows(kind, self.bench, expert, self.rows, self.seed) if self.bench else {}
        if self.bench is None or not rows:
            path = only_file(kind, expert, checkpoint)
            checked(path, kind, source, None)
            return path
        names = [name for name in self.bench.merged_names if name in source.tensors]
        model = model_fingerprint(source, names)
        data = data_fingerprint(kind, self.bench, rows, self.seed)
        places = [directory / file_name(kind, data) for directory in directories(checkpoint, model)]
        for path in places:
            if path.exists():
                checked(path, kind, source, data)
                return path
        examples = sum(len(part) for part in rows.values())
        with phase("statistics", expert=expert or "base", statistic=kind), ExitStack() as files:
            tensors, turned = self._measured(kind, self.bench, source, rows, places[0].parent, files)
            about = About(
                kind=kind,
                model=model,
                data=data,
                examples=examples,
                size=root_mean_square(tensors),
                inputs_first=turned,
                names=tuple(names),
            )
            save(places[0], about, tensors)
        emit(
            "note", message=f"{kind} of {expert or 'the base'}, measured on {examples} examples, is kept in {places[0]}"
        )
        return places[0]

    def _measured(
        self,
        kind: str,
        bench: Workbench,
        source: TensorSource,
        rows: Mapping[str, Sequence[Row]],
        scratch: Path,
        files: ExitStack,
    ) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
        """Tensors by file name, while `files` is open, and the names of the weights that have their inputs first.

        What the expert lacks and takes from the base, such as a pooler, is not the expert's: it has no statistics.
        """
        from supermerge.statistics.alignment import logits
        from supermerge.statistics.filed import elementwise_by_file
        from supermerge.statistics.fisher import diagonal_fisher, sensitivity
        from supermerge.statistics.matrices import matrices
        from supermerge.statistics.norms import norm_moments

        bench.load(source)
        examples = encoded(bench, rows)

        def own(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = elementwise_by_file(bench.binding, values, self.base)
            return {name: one for name, one in found.items() if name in source.tensors}

        match KINDS[kind].side:
            case "inputs" | "outputs":
                return matrices(bench, kind, examples, self.seed, scratch, files)
            case "scales":
                return own(norm_moments(bench, examples)), ()
            case "elements":
                return own(diagonal_fisher(bench, kind, examples, self.seed)), ()
            case "tensor":
                found = own(sensitivity(bench, kind, examples, self.seed))
                return {name: one.sum(dtype=torch.float64) for name, one in found.items()}, ()
            case "model":
                return logits(bench, examples), ()
