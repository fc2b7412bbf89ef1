"""The parameters of learned methods: what a recipe may say beside `name: supermerge`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

AUTO = "auto"
AVERAGE = "average"
"""Values of `init` that are neither a number nor a method."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Hierarchy(BaseModel):
    """Experts are merged in groups, then the merges of the groups, and so on up a tree.

    Groups have `group` members: neighbours in the recipe, or (`by: similarity`) those whose task vectors point the same
    way. `groups` names them instead, as lists of experts that may be nested. `keep` leaves the groups' merges in the
    output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Annotated[int, Field(ge=2)] = 2
    groups: list[Any] | None = None
    by: Literal["order", "similarity"] = "order"
    keep: bool = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        more = sorted(self.model_fields_set & {"group", "by"})
        if self.groups is not None and more:
            raise ValueError(f"'groups' says who belongs together, and so does {more[0]!r}; give one of them")
        return self


class LearnSettings(BaseModel):
    """How coefficients are learned.

    `steps` bounds the optimiser's steps and `lr` is Adam's rate (`schedule` `cosine` lets it fall to 0 over the steps).
    `link` and `granularity` say what bounds a coefficient and what shares one. `loss` is an objective or weights by
    objective: `cross_entropy` of labelled examples, or, of unlabelled inputs, `entropy`, or the distance to the
    experts' predictions (`distill`) or to their pooled last hidden states (`features`). `balance: worst` gives tasks
    more weight the further they are from their experts' loss. `init` is the coefficient that all experts start from,
    `average` for 1/k, or a method with its defaults (`iso_c`): then learning starts at that method's merge, which
    becomes one more task vector beside the experts'. `auto` is `iso_c` for full fine-tunes, and a coefficient for
    adapters and very large models, in a hierarchy, with `on`, and with link softmax: 0.3, and at most 1/k. `on` is a
    method that makes the experts' task vectors (`ties` trims them and elects signs). With held-back data (`held_back`
    of a task), its loss is measured every `every` steps, learning stops `patience` steps after the best, and with
    `refit` all validation data are then learned from, for the number of steps found. `clip` bounds the norm of the
    gradient. `residency` is where the experts lie between readings: `disk` or `memory`, or with `offload` on the disk
    together with the model's own weights, or with `sharded` on the disk while the processes that `torchrun` started
    hold the model together (one alone holds it whole), all with the same result; or in memory as compressed task
    vectors, which changes what is learned (`bf16`, `int8`, `tvq4`, `tvq3`, `tvq2`, `rtvq`; arXiv 2503.06921). With
    `hierarchy` coefficients are learned in a tree, level by level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=0)] = 100
    lr: Positive = 0.02
    schedule: Literal["constant", "cosine"] = "constant"
    link: Literal["tanh", "identity", "clamp", "softmax"] = "tanh"
    granularity: Literal["model", "layer", "module", "tensor", "row"] = "tensor"
    loss: str | dict[str, Positive] = "cross_entropy"
    balance: Literal["equal", "worst"] = "equal"
    init: float | str = AUTO
    on: str | None = None
    every: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[int, Field(ge=1)] | None = 20
    refit: bool = True
    clip: Positive | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    residency: Literal[
        "auto", "disk", "memory", "offload", "sharded", "bf16", "int8", "tvq4", "tvq3", "tvq2", "rtvq"
    ] = "auto"
    save_every: Positive = 30.0
    hierarchy: Hierarchy | None = None

    @property
    def start(self) -> str | None:
        """The method whose merge `init` names."""
        return self.init if isinstance(self.init, str) and self.init not in (AUTO, AVERAGE) else None
