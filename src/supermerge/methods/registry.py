"""The registry: every published way to merge, under one name, with what a planner or a page must know of it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from supermerge.errors import RecipeError
from supermerge.methods.context import Context
from supermerge.methods.factored import FactoredMerge
from supermerge.methods.measured import KINDS, Even, Measured, Statistics
from supermerge.methods.parameters import configuration, injected, validated
from supermerge.methods.survey import MeasuredSurvey, Survey

Scope = Literal["element", "row", "tensor", "model"]
Values = Mapping[str, Any]
SurveyFactory = Callable[[Values, int], Survey | None]
"""(parameters, number of experts) → a fresh survey, or None where these parameters need none."""
FactoredFactory = Callable[[Values, int], FactoredMerge | None]
"""(parameters, number of experts) → the same merge on factors, or None where these parameters do not allow it."""
StatisticsNeeds = Sequence[str] | Callable[[Values], Sequence[str]]
"""The kinds of statistics that a method needs, whatever its parameters or as they say."""
SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
"""What λ is searched over where a method has a `scale`: the papers' own grids lie between these."""
Process = Callable[..., Tensor | Sequence[Tensor]]
"""`(base, taus, *, …) -> [τ'1 … τ'k]`, with parameters of the method or fewer: base + scale · Σᵢ τ'ᵢ is its merge (with
`merge: sum` where it can also average; with scale 1 where the function has a `scale` itself)."""
_ENTRY_POINTS = "supermerge.methods"


@dataclass(frozen=True, slots=True)
class LearnedSpec:
    """A learned method as data: what `supermerge.learn` must do. The merge itself is then θp + Σ link(w) τ."""

    link: str
    loss: str
    init: float | str
    granularity: str
    data: Literal["labelled", "unlabelled"]
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Method:
    """One published way to merge.

    `scope` says what the result depends on: `element` methods may be cut anywhere, `row` ones between vectors along the
    last dimension, `tensor` ones depend on whole tensors, `model` ones on all of them. A method of the last two that
    has a `survey` sees pieces of tensors after it (unless `whole` is set); without one it sees whole tensors.
    `statistics` are the kinds (`measured.KINDS`) that must be measured of every expert on its task's data.
    `process` gives what the method makes of every single task vector, where it makes something of them.
    `factored` is the same merge on task vectors that are given as factors, without multiplying them out: of zeros it
    makes zeros. `tune` is the parameter that matters most, and the values that comparisons try, the mildest first;
    without it, that is `scale`, where there is one. `least` and `most` bound the number of experts. `cost` says what is
    read and held and what takes the time, `use` and `avoid` when the method is a good choice and when it is not.
    """

    name: str
    title: str
    paper: str
    function: Callable[..., Tensor] | None
    scope: Scope | Callable[[Values], Scope]
    doc: str
    needs_base: bool = True
    least: int = 1
    most: int | None = None
    whole: bool = False
    survey: SurveyFactory | None = None
    statistics: StatisticsNeeds = ()
    factored: FactoredFactory | None = None
    process: Process | None = None
    learned: LearnedSpec | None = None
    tune: tuple[str, Sequence[float]] | None = None
    cost: str = ""
    use: str = ""
    avoid: str = ""

    @property
    def parameters(self) -> type[BaseModel]:
        """What checks the parameters."""
        return _configuration_of(self.name, self.function)

    @property
    def kind(self) -> Literal["static", "learned"]:
        """Whether coefficients are learned from data."""
        return "learned" if self.learned else "static"

    @property
    def data(self) -> Literal["labelled", "unlabelled"] | None:
        """The examples of every task that the method needs by default, if any."""
        if self.learned is not None:
            return self.learned.data
        kinds = self.bind().kinds if self.statistics else ()
        return None if not kinds else "labelled" if any(KINDS[kind].labelled for kind in kinds) else "unlabelled"

    @property
    def candidates(self) -> tuple[str, Sequence[float]] | None:
        """The parameter that comparisons tune, and the values that they try; None where there is nothing to tune."""
        return self.tune or (("scale", SCALES) if "scale" in self.parameters.model_fields else None)

    def bind(self, params: Values | None = None, *, weights: Sequence[float] | None = None) -> Bound:
        """The method with validated parameters; unknown keys and values out of range are a RecipeError."""
        given = dict(params or {})
        if weights is not None:
            given["weights"] = tuple(weights)
        return Bound(self, validated(self.name, self.parameters, given))


@dataclass(frozen=True, slots=True)
class Bound:
    """A method and its validated parameters: a function of tensors.

    `measured` are the statistics of the experts, once there are some, for a method that needs them.
    """

    method: Method
    values: Values
    measured: Measured | None = None

    @property
    def scope(self) -> Scope:
        """What the function must see at once, with these parameters."""
        scope = self.method.scope
        return scope(self.values) if callable(scope) else scope

    @property
    def chunked(self) -> bool:
        """Whether the function may see a piece of a tensor."""
        return self.scope in ("element", "row") or (self.survey(1) is not None and not self.method.whole)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of statistics that must be measured of every expert."""
        wanted = self.method.statistics
        return tuple(wanted(self.values) if callable(wanted) else wanted)

    def with_statistics(self, measured: Measured) -> Bound:
        """The same with the statistics of the experts."""
        return replace(self, measured=measured)

    def rehearsal(self) -> Bound:
        """The same, able to merge before anything is measured: with statistics that are all alike."""
        return self if self.measured is not None or not self.kinds else self.with_statistics(Even())

    def survey(self, k: int) -> Survey | None:
        """A fresh survey of k task vectors, of a tensor or of the model as `scope` says, where the method needs one."""
        survey = self.method.survey(self.values, k) if self.method.survey else None
        if isinstance(survey, MeasuredSurvey):
            survey.statistics = self._statistics
        return survey

    def factored(self, k: int) -> FactoredMerge | None:
        """The merge of k task vectors that are given as factors, where there is such a way."""
        return self.method.factored(self.values, k) if self.method.factored else None

    def __call__(self, base: Tensor, taus: Tensor, context: Context, survey: Survey | None = None) -> Tensor:
        """base `[*shape]`, taus `[k, *shape]` → merged `[*shape]`."""
        function = self.require_function()
        return function(base, taus, **self.values, **self._extra(function, base, context, survey))

    def processed(self, base: Tensor, taus: Tensor, context: Context, survey: Survey | None = None) -> Sequence[Tensor]:
        """τ'1 … τ'k, what the method makes of every task vector; RecipeError for a method that only merges them."""
        function = self.method.process
        if function is None:
            able = ", ".join(name for name in names() if get(name).process)
            raise RecipeError(
                f"on: {self.method.name} merges task vectors, and makes nothing of every single one.",
                hint=f"Start from its merge with `init: {self.method.name}`; methods for `on`: {able}.",
            )
        wanted = {name: value for name, value in self.values.items() if name in takes(function)}
        return list(function(base, taus, **wanted, **self._extra(function, base, context, survey)))

    def _extra(
        self, function: Callable[..., Any], base: Tensor, context: Context, survey: Survey | None
    ) -> dict[str, Any]:
        """What `function` asks for besides configuration."""
        extra: dict[str, Any] = {}
        for name, kind in injected_of(function).items():
            if issubclass(kind, Statistics):
                extra[name] = self._statistics(context, base)
            else:
                extra[name] = context if issubclass(kind, Context) else survey
        return extra

    def _statistics(self, context: Context, base: Tensor) -> Statistics:
        return Statistics() if self.measured is None else self.measured.of(self.kinds, context, base.shape)

    def require_function(self) -> Callable[..., Tensor]:
        """The method's function; RecipeError for a method that has not learned or measured yet what it needs."""
        if self.method.function is None:
            raise RecipeError(
                f"method {self.method.name} learns its coefficients from data and cannot merge without it.",
                hint="Give the recipe tasks and use `supermerge run`, or call supermerge.learn.",
            )
        if self.kinds and self.measured is None:
            raise RecipeError(
                f"method {self.method.name} needs statistics of the experts ({', '.join(self.kinds)}) and cannot merge "
                "without data.",
                hint="Give the recipe tasks and use `supermerge run`.",
            )
        return self.method.function

    def merge(self, base: Tensor, taus: Tensor, *, name: str = "weight", seed: int = 0) -> Tensor:
        """Merge one tensor as if it were the whole model, survey included."""
        k = len(taus)
        self.check(k)
        context = Context(name, tuple(base.shape), tuple(str(i) for i in range(k)), seed)
        return self(base, taus, context, self.surveyed(base, taus, context))

    def surveyed(self, base: Tensor, taus: Tensor, context: Context) -> Survey | None:
        """The survey of one whole tensor, finished, where the method needs one."""
        survey = self.survey(len(taus))
        while survey is not None:
            survey.observe(context, base, taus)
            if not survey.finish_pass():
                break
        return survey

    def check(self, k: int) -> None:
        """Refuse, as a RecipeError, a number of experts that the method or its per-expert parameters do not allow."""
        method = self.method
        if k < method.least or (method.most is not None and k > method.most):
            wanted = f"at least {method.least}" if method.most is None else f"{method.least} to {method.most}"
            raise RecipeError(
                f"method {method.name}: {k} experts given, expected {wanted}.",
                hint="Change the list of experts or the method.",
            )
        for name, value in self.values.items():
            if isinstance(value, tuple) and value and not isinstance(value[0], str) and len(value) != k:
                raise RecipeError(
                    f"method {method.name}: {name} has {len(value)} values for {k} experts.",
                    hint="Give one value per expert, in the order of the experts, or a single one for all.",
                )

    def rehearse(self, k: int) -> None:
        """Merge one tiny tensor, so that contradictions in the parameters surface before anything is written."""
        self.check(k)
        if self.method.function is not None and self.method.learned is None:
            ramp = torch.linspace(0.5, 1.5, 16).view(4, 4)
            self.rehearsal().merge(ramp, torch.stack([ramp * (i + 1) for i in range(k)]))


injected_of = cache(injected)


@cache
def _configuration_of(name: str, function: Callable[..., Tensor] | None) -> type[BaseModel]:
    """Made for the methods that are used: for all, it would take longer than to import them."""
    return configuration(name, function or (lambda: None))


@cache
def takes(function: Callable[..., Any]) -> frozenset[str]:
    """The names of a function's parameters."""
    return frozenset(inspect.signature(function).parameters)


_methods: dict[str, Method] = {}
_aliases: dict[str, str] = {}


def method(
    name: str,
    *,
    scope: Scope | Callable[[Values], Scope],
    title: str,
    paper: str,
    needs_base: bool = True,
    least: int = 1,
    most: int | None = None,
    whole: bool = False,
    survey: SurveyFactory | None = None,
    statistics: StatisticsNeeds = (),
    factored: FactoredFactory | None = None,
    tune: tuple[str, Sequence[float]] | None = None,
    process: Process | None = None,
    aliases: Sequence[str] = (),
    cost: str = "",
    use: str = "",
    avoid: str = "",
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function `(base, taus, *, parameters…) -> merged` as the method called `name`."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        entry = Method(
            name=name,
            title=title,
            paper=paper,
            function=function,
            scope=scope,
            doc=inspect.getdoc(function) or title,
            needs_base=needs_base,
            least=least,
            most=most,
            whole=whole,
            survey=survey,
            statistics=statistics,
            factored=factored,
            tune=tune,
            process=process,
            cost=cost,
            use=use,
            avoid=avoid,
        )
        _add(entry, aliases)
        return function

    return register


def learned(
    name: str, spec: LearnedSpec, *, title: str, paper: str, doc: str, cost: str = "", use: str = "", avoid: str = ""
) -> Method:
    """Register a method whose coefficients are learned."""
    entry = Method(name, title, paper, None, "element", doc, learned=spec, cost=cost, use=use, avoid=avoid)
    _add(entry, ())
    return entry


def get(name: str) -> Method:
    """The method called `name`; an unknown one is a RecipeError with a suggestion."""
    _discover()
    if name not in _methods and name not in _aliases:
        close = difflib.get_close_matches(name, [*_methods, *_aliases], n=1)
        raise RecipeError(
            f"method: unknown method {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""),
            hint=f"Methods: {', '.join(names())}.",
        )
    return _methods[_aliases.get(name, name)]


def names() -> list[str]:
    """The names of all methods, sorted."""
    _discover()
    return sorted(_methods)


def _add(entry: Method, aliases: Sequence[str]) -> None:
    for name in (entry.name, *aliases):
        if name in _methods or name in _aliases:
            raise RecipeError(f"method {name!r} is registered twice.", hint="Uninstall one of its packages.")
    _methods[entry.name] = entry
    _aliases.update(dict.fromkeys(aliases, entry.name))


@cache
def _discover() -> None:
    package = importlib.import_module("supermerge.methods")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"supermerge.methods.{module}")
    for point in sorted(entry_points(group=_ENTRY_POINTS), key=lambda point: point.name):
        try:
            point.load()
        except ImportError as error:
            raise RecipeError(
                f"method {point.name!r} of {point.value} cannot be imported: {error}.",
                hint="Repair or uninstall the package that provides it.",
            ) from error
