"""The loop around the engine: steps, held-back measurements, the best so far, divergence, saving and resuming."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supermerge.errors import DataError, RefusedError, ResourceError
from supermerge.events import emit
from supermerge.learn.balance import Balance
from supermerge.learn.coefficients import Coefficients
from supermerge.learn.state import Progress, StepRecord, load_state, save_state
from supermerge.learn.stepping import Item, Loss, Stepping

Batch = tuple[str, Any] | Sequence[tuple[str, Any] | tuple[str, Any, float]]
"""One optimiser step: (task, batch), or a list of (task, batch[, weight])."""


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Measure `held_back(model)`, lower is better, every `every` steps; the lowest gives the result.

    Learning stops `patience` steps after the best; `None` runs all steps.
    """

    held_back: Callable[[nn.Module], float]
    every: int = 1
    patience: int | None = None


@dataclass(frozen=True, slots=True)
class Saving:
    """Keep the state of learning in `path`, every `seconds`; a state found there with the same `key` is resumed."""

    path: Path
    key: str
    seconds: float = 30.0


class Diverged(RefusedError):
    """The loss or the coefficients stopped being finite; `coefficients` are the last good ones."""

    def __init__(self, message: str, *, hint: str, coefficients: Coefficients) -> None:
        super().__init__(message, hint=hint)
        self.coefficients = coefficients


class Loop:
    """Runs the engine over batches; then `engine.coefficients` are the result and `progress` tells how it went."""

    def __init__(
        self,
        engine: Stepping,
        model: nn.Module,
        loss: Loss,
        *,
        schedule: Callable[[int], float] | None = None,
        balance: Balance | None = None,
        early_stopping: EarlyStopping | None = None,
        saving: Saving | None = None,
    ) -> None:
        self.progress = Progress(0, [], 0, None, torch.get_num_threads(), saving.key if saving else "")
        self._engine, self._model, self._loss = engine, model, loss
        self._schedule, self._balance, self._stopping, self._saving = schedule, balance, early_stopping, saving
        self._best = engine.coefficients.copy()
        self._saved_at = time.monotonic()

    def run(self, batches: Iterable[Batch], steps: int) -> None:
        """Take up to `steps` steps; the model ends with the weights of the resulting coefficients."""
        self._resume()
        progress, engine = self.progress, self._engine
        items = islice(iter(batches), progress.step, None)
        before = engine.snapshot()
        while progress.step < steps and not self._patience_is_over():
            held_back = self._measure()
            snapshot = engine.snapshot()
            try:
                record = self._step(_next_item(items, progress.step, steps), held_back, steps, before[0])
            except Diverged:
                raise
            except BaseException:
                # Half a step may have been applied: take it back, so that a resumed run repeats it whole.
                engine.restore(snapshot)
                self._save()
                raise
            progress.history.append(record)
            progress.step += 1
            before = snapshot
            if self._saving and time.monotonic() - self._saved_at >= self._saving.seconds:
                self._save()
        self._finish(before[0])

    def _step(self, items: Sequence[Item], held_back: float | None, steps: int, last_good: Coefficients) -> StepRecord:
        step, start = self.progress.step, time.perf_counter()
        factor = self._schedule(step) if self._schedule else 1.0
        balanced = self._balance(self.progress.history) if self._balance else {}
        weighted = [(task, batch, weight * balanced.get(task, 1.0)) for task, batch, weight in items]
        losses = self._engine.step(weighted, self._model, self._loss, lr_factor=factor)
        loss = sum(weight * value for (_, _, weight), value in zip(weighted, losses, strict=False))
        if not math.isfinite(loss):
            raise self._diverged(f"the loss of step {step} ({items[len(losses) - 1][0]}) is {losses[-1]}", last_good)
        by_task = _by_task(items, losses)
        emit(
            "step",
            step=step,
            steps=steps,
            loss=loss,
            losses=by_task,
            held_back=held_back,
            seconds=time.perf_counter() - start,
            rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        return StepRecord(step, loss, by_task, held_back)

    def _measure(self) -> float | None:
        """The held-back loss of the current coefficients where it is due; the best are kept."""
        stopping, progress = self._stopping, self.progress
        if stopping is None or progress.step % stopping.every:
            return None
        with torch.no_grad():
            # Every process measures, which a sharded model needs; one decides for all.
            value = self._engine.peers.exchange(stopping.held_back(self._model))[0]
        if progress.best_loss is None or value < progress.best_loss:
            progress.best_step, progress.best_loss = progress.step, value
            self._best.assign(self._engine.coefficients)
        return value

    def _patience_is_over(self) -> bool:
        patience = self._stopping.patience if self._stopping else None
        return patience is not None and self.progress.step - self.progress.best_step >= patience

    def _finish(self, last_good: Coefficients) -> None:
        progress, engine = self.progress, self._engine
        if not all(torch.isfinite(w).all() for w in engine.coefficients.w.values()):
            raise self._diverged("the coefficients are not finite", last_good)
        if self._stopping is None:
            progress.best_step = progress.step
            return
        held_back = self._measure()
        if held_back is not None:
            progress.history.append(StepRecord(progress.step, None, {}, held_back))
        if progress.best_step != progress.step:
            engine.coefficients.assign(self._best)
            engine.rebuild()

    def _diverged(self, what: str, last_good: Coefficients) -> Diverged:
        """The error to raise, after taking the model and the coefficients back to the last good ones."""
        self._engine.coefficients.assign(last_good)
        self._engine.rebuild()
        return Diverged(
            f"Learning diverged: {what}.",
            hint="Lower the learning rate, or start from smaller coefficients.",
            coefficients=last_good,
        )

    def _resume(self) -> None:
        if self._saving is None:
            return
        engine = self._engine
        found = load_state(self._saving.path, self._saving.key, engine.coefficients, engine.states, self._best)
        if found is not None:
            self.progress = found
            torch.set_num_threads(found.threads)
            emit("note", message=f"Resumed after {found.step} steps.")
        if len(set(engine.peers.exchange(self.progress.step))) > 1:
            raise ResourceError(
                f"{self._saving.path}: not all processes see the same state of learning.",
                hint="All processes must use one file system.",
            )
        engine.rebuild()

    def _save(self) -> None:
        if self._saving is not None and self._engine.peers.rank == 0:
            save_state(self._saving.path, self._engine.coefficients, self._engine.states, self._best, self.progress)
            self._saved_at = time.monotonic()


def _next_item(items: Iterator[Batch], step: int, steps: int) -> list[Item]:
    """The next step's (task, batch, weight)s, from either form of a batch."""
    batch = next(items, None)
    if batch is None:
        raise DataError(f"The batches ended after {step} of {steps} steps.", hint="Pass more, or an endless iterator.")
    parts: Any = [batch] if isinstance(batch, tuple) and isinstance(batch[0], str) else batch
    return [(str(task), data, float(weight[0]) if weight else 1.0) for task, data, *weight in parts]


def _by_task(items: Sequence[Item], losses: Sequence[float]) -> dict[str, float]:
    """The mean loss of every task, its items counted by weight."""
    sums: dict[str, tuple[float, float]] = {}
    for (task, _, weight), loss in zip(items, losses, strict=True):
        total, weights = sums.get(task, (0.0, 0.0))
        sums[task] = total + weight * loss, weights + weight
    return {task: total / weights if weights else 0.0 for task, (total, weights) in sums.items()}
