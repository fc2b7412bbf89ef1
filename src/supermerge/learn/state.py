"""The state of learning on disk: saved every few seconds, so that an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from supermerge.checkpoint import load_tensors, save_tensors
from supermerge.learn.adam import AdamState
from supermerge.learn.coefficients import Coefficients


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step saw before it moved: the losses, and the held-back loss where it was measured.

    The last record of a run with held-back data has no loss of its own.
    """

    step: int
    loss: float | None
    losses: dict[str, float]
    held_back: float | None = None


@dataclass(slots=True)
class Progress:
    """Where learning stands after `step` steps: everything a resumed run needs besides the coefficients themselves."""

    step: int
    history: list[StepRecord]
    best_step: int
    best_loss: float | None
    threads: int
    key: str
    """Identifies the run: a state of another recipe, model or data is never resumed."""


def save_state(
    path: Path, coefficients: Coefficients, states: dict[str, AdamState], best: Coefficients, progress: Progress
) -> None:
    """Write the state; a state file that exists is whole."""
    tensors: dict[str, Tensor] = {}
    for group, w in coefficients.w.items():
        tensors[f"w/{group}"] = w
        tensors[f"best/{group}"] = best.w[group]
        tensors[f"mean/{group}"] = states[group].mean
        tensors[f"square/{group}"] = states[group].square
    steps = {group: state.steps for group, state in states.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, {"progress": json.dumps(asdict(progress)), "steps": json.dumps(steps)})


def load_state(
    path: Path, key: str, coefficients: Coefficients, states: dict[str, AdamState], best: Coefficients
) -> Progress | None:
    """Fill `coefficients`, `states` and `best` from a saved state; None where there is none, or one of another run."""
    if not path.exists():
        return None
    tensors, metadata = load_tensors(path)
    fields = json.loads(metadata["progress"])
    if fields["key"] != key:
        return None
    steps = json.loads(metadata["steps"])
    for group, w in coefficients.w.items():
        w.copy_(tensors[f"w/{group}"])
        best.w[group].copy_(tensors[f"best/{group}"])
        states[group].mean.copy_(tensors[f"mean/{group}"])
        states[group].square.copy_(tensors[f"square/{group}"])
        states[group].steps = steps[group]
    history = [StepRecord(**record) for record in fields.pop("history")]
    return Progress(**fields, history=history)
