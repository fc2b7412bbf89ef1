"""The task vectors that a learned merge combines: the experts' own, or what another method makes of them.

    θm(j) = θp(j) + Σᵢ c(i, j) v(i, j)

By default v(i) = τ(i), expert minus base. `on: METHOD` takes τ'(i), what that method makes of it (TIES trims and
elects, TSV-M decorrelates). `init: METHOD` adds one vector more, twice the way from the base to that method's merge θ*,

    v(start) = 2 (θ* − θp),

which starts at ½ while the experts start at 0: learning starts at θ* itself, and a coefficient bounded by 1 can take it
twice as far. So a start loses nothing of merges that no combination of task vectors reaches (Iso-C, TSV-M).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from supermerge.checkpoint import Match
from supermerge.errors import RecipeError
from supermerge.learn.automatic_start import automatic_start
from supermerge.methods import Bound, Context, Method, Survey, get
from supermerge.methods.registry import FactoredFactory
from supermerge.methods.settings import AUTO, AVERAGE, LearnSettings

Combine = Callable[[Tensor, Sequence[Tensor], Context], Tensor]
"""(base, all vectors, context) → what is wanted of them."""

START = 0.5
"""The coefficient that the start's vector starts from: in the middle of what tanh reaches."""


@dataclass(frozen=True, slots=True)
class Basis:
    """`on` makes the vectors of the experts, `start` is the merge to start from; without either, `value` is."""

    experts: tuple[str, ...]
    on: Bound | None = None
    start: Bound | None = None
    value: float = 0.3

    @classmethod
    def of(cls, settings: LearnSettings, experts: Sequence[str], match: Match | None = None) -> Basis:
        """What `init` and `on` of a recipe mean for these experts; RecipeError where they cannot be.

        `match` are their checkpoints, which `init: auto` looks at (see `automatic_start`).
        """
        k = len(experts)
        on = None if settings.on is None else _on(settings.on, k)
        init = automatic_start(settings, k, match) if settings.init == AUTO else settings.init
        if not isinstance(init, str):
            return cls(tuple(experts), on, None, init)
        if init == AVERAGE:
            return cls(tuple(experts), on, None, 1 / k)
        start = _start(init, k)
        if settings.link == "softmax":
            raise RecipeError(
                f"init: {init} starts at {START} and the experts at 0, which link softmax cannot give.",
                hint="Use link tanh, identity or clamp, or a number for init.",
            )
        return cls(tuple(experts), on, start)

    @property
    def names(self) -> tuple[str, ...]:
        """What the coefficients belong to: the experts, then the start."""
        return self.experts if self.start is None else (*self.experts, f"start:{self.start.method.name}")

    @property
    def init(self) -> dict[str, float]:
        """The coefficient that each vector starts from."""
        if self.start is None:
            return dict.fromkeys(self.names, self.value)
        return {**dict.fromkeys(self.experts, 0.0), self.names[-1]: START}

    @property
    def derived(self) -> tuple[str, ...]:
        """The vectors that are in no expert's file."""
        return self.names[0 if self.on else len(self.experts) :]

    @property
    def members(self) -> list[Bound]:
        """The methods that make vectors."""
        return [member for member in (self.on, self.start) if member is not None]

    def bound(self, method: Method, combine: Combine, factored: FactoredFactory | None = None) -> Bound:
        """`method`, its function being `combine` of the vectors; its scope and survey are those of the makers.

        Where both `on` and `init` name a method, both see whole tensors. `factored` is the same on the experts' own
        vectors, as factors.
        """
        members = self.members
        whole = len(members) > 1 or any(member.method.whole for member in members)
        scopes = [member.scope for member in members] or ["element"]
        scope = scopes[0] if len(scopes) == 1 else "model" if "model" in scopes else "tensor"

        def survey(_: object, k: int) -> Surveys | None:
            found = [member.survey(k) if member.scope == scope else None for member in members]
            return None if all(one is None for one in found) else Surveys(found)

        def combined(base: Tensor, taus: Tensor, context: Context, survey: Surveys | None) -> Tensor:
            return combine(base, self.vectors(base, taus, context, survey), context)

        found = replace(method, function=combined, scope=scope, whole=whole, survey=survey, statistics=())
        return Bound(replace(found, factored=None if members else factored), {})

    def vectors(self, base: Tensor, taus: Tensor, context: Context, survey: Surveys | None) -> list[Tensor]:
        """Every vector of a tensor, or of a piece of it, in the order of `names`."""
        surveys = iter(survey.members if survey else [None] * len(self.members))

        def of(member: Bound) -> Survey | None:
            # With a partner of a larger scope, a survey of one tensor has not been made: the whole tensor is at hand.
            return next(surveys) or member.surveyed(base, taus, context)

        made = list(taus) if self.on is None else list(self.on.processed(base, taus, context, of(self.on)))
        if self.start is not None:
            made.append((self.start(base, taus, context, of(self.start)) - base) / START)
        return made

    def rehearsal(self) -> Basis:
        """The same, able to make vectors before anything is measured."""
        return self if self.start is None else replace(self, start=self.start.rehearsal())

    def derive(self, base: Tensor, vectors: Sequence[Tensor], _: Context) -> Tensor:
        """[n, *shape]: the models θp + v of the `derived` vectors."""
        return torch.stack([base + vector for vector in vectors[-len(self.derived) :]])


class Surveys(Survey):
    """The surveys of several methods over the same tensors; None for one that needs none."""

    def __init__(self, members: Sequence[Survey | None]) -> None:
        self.members = members
        self._running = [member for member in members if member is not None]

    def observe(self, context: Context, base: Tensor, taus: Tensor) -> None:
        """One piece, for those that have not finished."""
        for member in self._running:
            member.observe(context, base, taus)

    def finish_pass(self) -> bool:
        """As many passes as the longest of them needs."""
        self._running = [member for member in self._running if member.finish_pass()]
        return bool(self._running)


def _start(init: str, k: int) -> Bound:
    try:
        method = get(init)
    except RecipeError:
        raise RecipeError(
            f"init: expected a number, 'auto', 'average' or a method, found {init!r}.",
            hint="'average' starts every expert at 1/k; `supermerge methods` lists the methods.",
        ) from None
    if method.learned is not None:
        raise RecipeError(f"init: {init} learns its coefficients itself.", hint="Start from a method that does not.")
    bound = method.bind()
    bound.rehearse(k)
    return bound


def _on(name: str, k: int) -> Bound:
    bound = get(name).bind()
    bound.check(k)
    ramp = torch.linspace(0.5, 1.5, 16).view(4, 4)
    taus = torch.stack([ramp * (i + 1) for i in range(k)])
    context = Context("weight", (4, 4), tuple(str(i) for i in range(k)))
    bound.processed(ramp, taus, context, bound.surveyed(ramp, taus, context))
    return bound
