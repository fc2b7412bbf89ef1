"""The numbers of one run, as `metrics.json` holds them; the page, the charts and the card read nothing else."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Environment(_Part):
    """What the run ran on; `transformers` is null for a merge that needed no model class."""

    python: str
    torch: str
    transformers: str | None = None
    threads: Count
    machine: str


class TaskResult(_Part):
    """One task: what was measured, on how many examples, and which expert was made for it.

    `labels` are the class names (null where a task has none). `expert` null means the one that bears the task's name.
    """

    type: str
    metric: str
    n_test: Count
    n_validation: Count
    labels: list[str] | None = None
    expert: str | None = None
    higher_is_better: bool = True


class Score(_Part):
    """A metric on `n` test examples; `low` to `high` is its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float
    n: Count


class ModelResult(_Part):
    """One model that was scored: the base, an expert, the merged model, or another method's (from `compare`).

    `id` is "base", "expert:<name>", "merged" or "method:<name>". `mean` is over all tasks, `normalised` the mean of
    score ÷ own expert's score, `worst` the lowest of these ratios; null where they mean nothing. Of compared methods,
    `rank` is the mean over the tasks of the place among them, and `validation` the mean score on the held-back
    validation examples, which nothing was learned from.
    """

    id: str
    label: str
    kind: Literal["base", "expert", "merged", "method"]
    scores: dict[str, Score]
    mean: float | None = None
    normalised: float | None = None
    worst: float | None = None
    rank: float | None = None
    validation: float | None = None
    seconds: Seconds | None = None
    peak_rss_bytes: Count | None = None
    settings: dict[str, JsonValue] = {}


class CurvePoint(_Part):
    """Training loss after a step, and the loss on held-back examples where it was measured."""

    step: Count
    loss: float | None
    held_back: float | None = None


class Learning(_Part):
    """How the coefficients were learned: from so many labelled examples and unlabelled inputs of all tasks together.

    `tree` is set where they were learned in groups, as `((a, b), (c, d))`; steps and curve are then the last group's.
    """

    steps: Count
    best_step: Count | None
    curve: list[CurvePoint]
    seconds: Seconds
    loss: str
    link: str
    granularity: str
    lr: float
    labelled: Count = 0
    unlabelled: Count = 0
    tree: str | None = None


class Coefficients(_Part):
    """Effective coefficients link(w): `values[j][i]` is tensor j's of expert i (row granularity: mean of the rows).

    Last among `experts` may be the merge that learning started at, as `start:METHOD`.
    """

    experts: list[str]
    tensors: list[str]
    values: list[list[float]]

    @property
    def start(self) -> str | None:
        """The name of the start's column, if there is one: no expert's name has a colon."""
        return next((name for name in self.experts if name.startswith("start:")), None)

    @model_validator(mode="after")
    def _check_shape(self) -> Coefficients:
        _require_shape("coefficients.values", self.values, len(self.tensors), len(self.experts))
        return self


class Geometry(_Part):
    """Size and direction of the task vectors: norms ‖τᵢ‖, relative norms ‖τᵢ‖ ÷ ‖θp‖, cosines [k, k]."""

    experts: list[str]
    norms: list[float]
    relative_norms: list[float]
    cosines: list[list[float]]

    @model_validator(mode="after")
    def _check_shape(self) -> Geometry:
        k = len(self.experts)
        _require_shape("geometry.norms", [self.norms, self.relative_norms], 2, k)
        _require_shape("geometry.cosines", self.cosines, k, k)
        return self


class Adapter(_Part):
    """The adapter of PEFT that was written: LORA or IA3 on so many modules, beside so many whole tensors.

    `ranks` are the lowest and the highest of LoRA. `errors` are ‖τ − BA‖ ÷ ‖τ‖ of every module that was recompressed;
    the others are exact.
    """

    kind: str
    modules: Count
    whole: Count
    ranks: list[Count] | None = None
    errors: dict[str, float] = {}


class Phase(_Part):
    """One phase of the run: wall-clock seconds, and the largest resident memory seen in it."""

    name: str
    seconds: Seconds
    peak_rss_bytes: Count | None = None


class Cost(_Part):
    """What the run cost."""

    phases: list[Phase]
    bytes_read: Count | None = None
    bytes_written: Count | None = None
    output_bytes: Count | None = None


class Recommendation(_Part):
    """The model to ship (its id) and why.

    Of compared methods: `difference` is its mean test score less that of `runner_up`, positive where it is better, with
    its 95 % interval and two-sided p over `n` examples.
    """

    model: str
    reason: str
    runner_up: str | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: Count | None = None


class Results(_Part):
    """The whole of `metrics.json`."""

    format: Literal[1] = 1
    command: str
    recipe_yaml: str
    method: str
    created: datetime
    environment: Environment
    tasks: dict[str, TaskResult] = {}
    models: list[ModelResult] = []
    learning: Learning | None = None
    coefficients: Coefficients | None = None
    geometry: Geometry | None = None
    adapter: Adapter | None = None
    cost: Cost
    recommendation: Recommendation | None = None
    warnings: list[str] = []
    """What the user should know before using the model, said on the terminal too."""

    @model_validator(mode="after")
    def _check_references(self) -> Results:
        ids = Counter(model.id for model in self.models)
        if twice := [id_ for id_, times in ids.items() if times > 1]:
            raise ValueError(f"models: ids listed twice: {', '.join(twice)}")
        if sum(model.kind == "merged" for model in self.models) > 1:
            raise ValueError("models: more than one is of kind merged")
        for model in self.models:
            if unknown := model.scores.keys() - self.tasks.keys():
                raise ValueError(f"models: {model.id} has scores for unknown tasks: {', '.join(sorted(unknown))}")
        if self.recommendation is not None and self.recommendation.model not in ids:
            raise ValueError(f"recommendation: {self.recommendation.model} is not among the models")
        return self


def _require_shape(name: str, rows: list[list[float]], num_rows: int, num_columns: int) -> None:
    if len(rows) != num_rows or any(len(row) != num_columns for row in rows):
        found = sorted({len(row) for row in rows})
        raise ValueError(f"{name}: expected {num_rows} rows of {num_columns}, found {len(rows)} rows of {found}")
