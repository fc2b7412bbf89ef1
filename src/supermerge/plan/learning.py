"""What learning coefficients reads and holds: which tensors are learned as adapters' factors, which densely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from supermerge.checkpoint import Match
from supermerge.checkpoint.adapters import LowRank, Rescaled
from supermerge.learn.basis import Basis
from supermerge.learn.compression import bits_per_number, is_coding
from supermerge.learn.division import Division, divide
from supermerge.methods.settings import LearnSettings
from supermerge.plan.memory import OFFLOAD, SHARDED, embedding_bytes, gathered_bytes, model_bytes


@dataclass(frozen=True, slots=True)
class PlannedLearning:
    """The tensors of a merge, divided as `learn` will divide them."""

    match: Match
    settings: LearnSettings
    basis: Basis
    division: Division
    tasks: int
    processes: int
    tied: bool
    """Whether the model may have embeddings that are its output layer too."""

    @classmethod
    def of(
        cls, match: Match, settings: LearnSettings, tasks: int, *, processes: int = 1, tied: bool = False
    ) -> PlannedLearning:
        """From headers alone; one step has a batch of each of `tasks` tasks."""
        basis, by_row = Basis.of(settings, list(match.experts), match), settings.granularity == "row"
        if basis.derived or processes > 1:
            # What is made of the experts is no adapter, and several processes learn none as factors.
            division = Division({}, frozenset(), ())
        else:
            division = divide(match.base, match.experts, match.merged, by_row=by_row)
        return cls(match, settings, basis, division, tasks, processes, tied)

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors are learned as factors, as dense task vectors, and not at all."""
        dense, division = self._dense, self.division
        return {
            "factors": len(division.factored),
            "task_vectors": len(dense),
            "unchanged": len(self.match.merged) - len(division.factored) - len(dense),
        }

    @property
    def reads(self) -> int:
        """The base and all factors once; dense task vectors once more for every step, unless they stay in memory."""
        base = sum(info.nbytes for info in self.match.base.tensors.values())
        # What the experts share is made in a reading of its own.
        passes = 2 if self.residency == "rtvq" else 1
        return base + self._factor_bytes + self._dense_bytes * passes + self.step_reads * self.settings.steps

    @property
    def step_reads(self) -> int:
        """Bytes read in every step: dense task vectors, unless they stay in memory, and an offloaded model."""
        if self.residency not in ("disk", OFFLOAD, SHARDED):
            return 0
        return self._dense_bytes + (self._model_reads if self.residency == OFFLOAD else 0)

    @property
    def derived_bytes(self) -> int:
        """What the vectors that are made before learning take on the disk, in fp32."""
        return len(self.basis.derived) * sum(self.match.base.tensors[name].numel * 4 for name in self.match.merged)

    @property
    def holds(self) -> int:
        """Beside the model and its activations: factors in fp32; gradients of dense tensors, the largest twice over.

        Task vectors that stay in memory do so as they are stored, or compressed. A frozen base saves fewer activations
        for its backward pass than were counted; what factors save, Σr numbers per place, is within that.
        """
        sizes = [self.match.base.tensors[name].numel * 4 for name in self._dense]
        if self.residency == OFFLOAD:
            # A gradient, what waited for it or the new weights, the base as stored and in fp32, and a task vector.
            return self._factor_bytes + 5 * max(sizes, default=0)
        if self.residency == SHARDED:
            # Gradients wait, as rows, where a process has several tasks; tied embeddings have a whole one.
            waiting = sum(sizes) if self.tasks > self.processes else 0
            own = (waiting + 2 * max(sizes, default=0)) // self.processes
            return own + gathered_bytes(self.match) + (embedding_bytes(self.match) if self.tied else 0)
        return self._factor_bytes + sum(sizes) + 2 * max(sizes, default=0) + self._kept

    @property
    def scratch(self) -> int:
        """What an offloaded model takes on the disk for a while: its weights, and gradients that wait, in fp32."""
        if self.residency != OFFLOAD:
            return 0
        dense = sum(self.match.base.tensors[name].numel * 4 for name in self._dense)
        return model_bytes(self.match) + (dense if self.tasks > 1 else 0)

    @property
    def _model_reads(self) -> int:
        """Every batch reads the weights forward and backward; gradients of all batches but the last wait."""
        dense = sum(self.match.base.tensors[name].numel * 4 for name in self._dense)
        return self.tasks * 2 * model_bytes(self.match) + (self.tasks - 1) * dense

    @property
    def residency(self) -> str:
        """Where the dense task vectors lie between readings: `disk`, `memory`, or in memory in a coding;
        with `offload` on the disk, and the model too; with `sharded` on the disk, and the model in all processes."""
        wanted = self.settings.residency
        return "disk" if wanted == "auto" or (wanted == SHARDED and self.processes == 1) else wanted

    @property
    def _kept(self) -> int:
        """Bytes of dense task vectors that stay in memory."""
        if is_coding(self.residency):
            k = len(self.basis.names)
            numbers = k * sum(self.match.base.tensors[name].numel for name in self._dense)
            return round(numbers * bits_per_number(self.residency, k) / 8)
        return self._dense_bytes if self.residency == "memory" else 0

    @property
    def _dense(self) -> list[str]:
        return self.division.dense(self.match.merged)

    @property
    def _dense_bytes(self) -> int:
        return self.derived_bytes + (0 if self.basis.on else experts_bytes(self.match, self._dense))

    @property
    def _factor_bytes(self) -> int:
        total = 0
        for name, parts in self.division.factored.items():
            rows, columns = self.match.base.tensors[name].shape
            total += 4 * (rows + columns) * sum(part.rank for part in parts if isinstance(part, LowRank))
            scaled = [part for part in parts if isinstance(part, Rescaled)]
            total += 4 * len(parts) * (rows if scaled[0].by_row else columns) if scaled else 0
        return total


def experts_bytes(match: Match, names: Iterable[str]) -> int:
    """One reading of every expert's tensors `names`, as they are stored, or as an adapter makes them."""
    wanted = list(names)
    return sum(source.tensors[name].nbytes for source in match.experts.values() for name in wanted)
