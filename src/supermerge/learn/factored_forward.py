"""Lets any model compute with merged tensors that are never made: base plus factors, wherever a weight is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from supermerge.learn.factored import Factored
from supermerge.offload import asks_about


class FactoredForward(TorchFunctionMode):
    """While entered, every use of a weight in `weights` is a use of its merge.

    Weights are known by their identity, so that models that share them share their merge too, whatever their modules
    are. Products and look-ups use the factors; any other use of a weight gets it whole, made for that use.
    `coefficients(name)` gives what `Factored` calls c, as a leaf of the graph.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        factored: Mapping[str, Factored],
        coefficients: Callable[[str], Tensor],
    ) -> None:
        super().__init__()
        self._names = {id(weight): name for name, weight in weights.items()}
        self._factored, self._coefficients = factored, coefficients

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if asks_about(func) or not (self._uses(args) or self._uses(named.values())):
            return func(*args, **named)
        return self._used(func, args, named)

    def _used(self, func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        inputs, others = args[:2], args[2:]
        if func is functional.linear and len(inputs) == 2 and not self._uses(args[:1]):
            return _plus(self._product("linear", *inputs), *others, **named)
        if func is functional.embedding and len(inputs) == 2 and not (named.get("max_norm") or any(others[1:2])):
            return self._product("embedding", *inputs)
        if func is torch.addmm and len(others) == 1 and not named and not self._uses(inputs):
            return _plus(self._product("matmul", inputs[1], *others), inputs[0])
        return func(*self._whole(args), **{key: self._whole(value) for key, value in named.items()})

    def _product(self, kind: str, x: Tensor, weight: Tensor) -> Tensor:
        name = self._names[id(weight)]
        return getattr(self._factored[name], kind)(x, weight, self._coefficients(name))

    def _uses(self, values: Any) -> bool:
        return any(id(v) in self._names or (isinstance(v, (tuple, list)) and self._uses(v)) for v in values)

    def _whole(self, value: Any) -> Any:
        """`value` with merged tensors in place of weights."""
        if isinstance(value, (tuple, list)):
            return type(value)(self._whole(one) for one in value)
        name = self._names.get(id(value))
        return value if name is None else self._factored[name].whole(value, self._coefficients(name))


def _plus(y: Tensor, *bias: Tensor | None, **named: Tensor | None) -> Tensor:
    """`y` with the bias that may have been given, by place or by name."""
    for one in (*bias, *named.values()):
        y = y if one is None else y + one
    return y
