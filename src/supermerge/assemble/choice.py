"""Which method merges which tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from supermerge.methods import Bound, get

Rules = Sequence[tuple[str, Bound]]


@dataclass(frozen=True, slots=True)
class Choice:
    """One method for all tensors, except those that a rule's glob matches; the first match wins.

    `by_name` comes before both: tensors with parameters of their own, as gradients over the layers give them.
    """

    default: Bound
    rules: Rules = field(default=())
    by_name: Mapping[str, Bound] = field(default_factory=dict)

    def __call__(self, name: str) -> Bound:
        """The method for the tensor called `name`."""
        if name in self.by_name:
            return self.by_name[name]
        return next((bound for pattern, bound in self.rules if fnmatchcase(name, pattern)), self.default)

    @property
    def bounds(self) -> list[Bound]:
        """Every method in it, each once."""
        found = (self.default, *(bound for _, bound in self.rules), *self.by_name.values())
        return list({id(bound): bound for bound in found}.values())

    def rehearse(self, k: int) -> None:
        """Refuse parameters that cannot work for k experts, before anything is read or written."""
        for bound in self.bounds:
            bound.rehearse(k)

    def require_functions(self) -> None:
        """Refuse a learned method that has not learned yet."""
        for bound in self.bounds:
            bound.require_function()


def chosen(
    method: str | Bound | Choice, params: Mapping[str, Any] | None, weights: Sequence[float] | None, rules: Rules
) -> Choice:
    """A `Choice` from what callers give: a method by name with parameters, or bound already, or a choice."""
    if isinstance(method, Choice):
        return method
    bound = method if isinstance(method, Bound) else get(method).bind(params, weights=weights)
    return Choice(bound, tuple(rules))
